"""The probes of one running container, asked from the monitor's loop.

Connections are the loop's own, without a process; the program of an exec probe is run by a worker beside the monitor.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cgroups.cgroup import Cgroup
from kernel.errors import RawpodError
from kernel.record import Record
from runtime.pod.loop import Loop, Timer
from runtime.pod.probe_socket import Connection, Place
from runtime.pod.probes import FAILURE, LIVENESS, STARTUP, SUCCESS, UNKNOWN, Exec, Grpc, HttpGet, Judge, Rule, TcpSocket
from runtime.pod.records import Json
from runtime.pod.worker import Worker

# What is due within this many seconds is done in one go: a monitor of many probes wakes up less often.
_GRID = 0.1
# A worker has this long to notice that its program took too long.
_PATIENCE = 10.0

Done = Callable[[str, str], None]


class Subject(Record):
    """The container that is probed: where it is reached, and what a program in it needs."""

    place: Place
    bundle: Path
    cgroup: Cgroup
    encoded: bytes


class Ask(Protocol):
    """A probe under way."""

    def overdue(self, seconds: int) -> tuple[str, str]:
        """The result when it has taken that long."""

    def close(self) -> None:
        """No more of it."""


class Prober:
    """Asks until it is closed. `changed` is called when a result or what `judge` makes of it is another than before."""

    def __init__(self, loop: Loop, rules: tuple[Rule, ...], subject: Subject, changed: Callable[[], None]) -> None:
        self.judge = Judge.of(rules)
        self.messages: dict[str, tuple[str, str]] = {}
        self._loop, self._subject, self._changed = loop, subject, changed
        self._born = time.monotonic()
        self._probes = {rule.kind: _Probe(self, rule) for rule in rules}
        self._begin()

    @property
    def workers(self) -> set[int]:
        """The pids of processes that run programs of probes."""
        return {probe.worker for probe in self._probes.values()}

    def _begin(self) -> None:
        for kind, probe in self._probes.items():
            if self.judge.asks(kind):
                probe.begin(self._born + probe.rule.initial_delay)

    def ask(self, rule: Rule, done: Done) -> Ask:
        """Begin one probe. Raises OSError or RawpodError when it cannot be."""
        loop, subject, action = self._loop, self._subject, rule.action
        if isinstance(action, TcpSocket):
            return _TcpAsk(loop, subject.place, action, done)
        if isinstance(action, HttpGet):
            from runtime.pod.probe_http import HttpAsk

            return HttpAsk(loop, subject.place, action, done)
        if isinstance(action, Grpc):
            from runtime.pod.probe_grpc import GrpcAsk

            return GrpcAsk(loop, subject.place, action, rule.timeout, done)
        return _ExecAsk(loop, subject, action, rule.timeout, done)

    def later(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call at `when`, or a little later together with others; not all monitors of a machine at the same time."""
        offset = os.getpid() % 100 * _GRID / 100
        aligned = math.ceil((when - offset) / _GRID) * _GRID + offset
        return self._loop.call_later(max(0.0, aligned - time.monotonic()), callback)

    def answered(self, kind: str, result: str, message: str) -> None:
        """Count a result. Who watches is told when it is another than the one before, not at each."""
        same = self.messages.get(kind) == (result, message)
        self.messages[kind] = (result, message)
        started = self.judge.started
        if not self.judge.add(kind, result) and same:
            return
        if self.judge.started and not started:
            self._probes[STARTUP].close()
            self._begin()
        if self.judge.failed:
            self.is_ending()
        self._changed()

    def is_ending(self) -> None:
        """The container was asked to end: from now on nothing but its readiness is of interest."""
        for kind in (STARTUP, LIVENESS):
            if kind in self._probes:
                self._probes[kind].close()

    def close(self) -> None:
        """No more probes."""
        for probe in self._probes.values():
            probe.close()

    def to_json(self) -> Json:
        """The last result of each, with what it said."""
        return {
            kind: {"result": result, **({"message": message} if message else {})}
            for kind, (result, message) in self.messages.items()
        }


class _Probe:
    """One probe over time: at a fixed pace, one at a time."""

    def __init__(self, prober: Prober, rule: Rule) -> None:
        self.rule = rule
        self._prober = prober
        self._due = 0.0
        self._timer: Timer | None = None
        self._overdue: Timer | None = None
        self._ask: Ask | None = None
        self._closed = False

    @property
    def worker(self) -> int:
        return self._ask.pid if isinstance(self._ask, _ExecAsk) else 0

    def begin(self, first: float) -> None:
        self._due = max(first, time.monotonic())
        self._timer = self._prober.later(self._due, self._start)

    def _start(self) -> None:
        limit = self.rule.timeout + (_PATIENCE if isinstance(self.rule.action, Exec) else 0.0)
        self._overdue = self._prober.later(time.monotonic() + limit, self._late)
        try:
            self._ask = self._prober.ask(self.rule, self._answered)
        except RawpodError as error:
            self._answered(UNKNOWN, str(error))
        except OSError as error:  # no route, no memory, no descriptors
            result = UNKNOWN if isinstance(self.rule.action, Exec) else FAILURE
            self._answered(result, (error.strerror or str(error)).lower())

    def _late(self) -> None:
        if self._ask is not None:
            ask, self._ask = self._ask, None
            ask.close()
            self._answered(*ask.overdue(self.rule.timeout))

    def _answered(self, result: str, message: str) -> None:
        self._ask = None
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        if self._closed:
            return
        # At the pace of the period: one that took longer is followed by the next at once, and nothing is made up for.
        self._due = max(self._due + self.rule.period, time.monotonic())
        self._timer = self._prober.later(self._due, self._start)
        self._prober.answered(self.rule.kind, result, message)

    def close(self) -> None:
        self._closed = True
        for timer in (self._timer, self._overdue):
            if timer is not None:
                timer.cancel()
        if self._ask is not None:
            self._ask.close()
            self._ask = None


class _TcpAsk:
    """tcpSocket: whether somebody listens."""

    def __init__(self, loop: Loop, place: Place, action: TcpSocket, done: Done) -> None:
        host = action.host or place.address
        self._done = done
        self._what = f"connect to {f'[{host}]' if ':' in host else host}:{action.port}"
        self._connection = Connection(loop, place, host, action.port, self)

    def opened(self) -> None:
        self.close()
        self._done(SUCCESS, "")

    def broke(self, reason: str) -> None:
        self.close()
        self._done(FAILURE, f"{self._what}: {reason}")

    def received(self, data: bytes) -> None:
        """Never: it is closed before."""

    def ended(self) -> None:
        """Never: it is closed before."""

    def overdue(self, seconds: int) -> tuple[str, str]:
        return FAILURE, f"{self._what}: no answer within {seconds} s"

    def close(self) -> None:
        self._connection.close()


class _ExecAsk:
    """exec: a program in the container, by a worker, as who joins namespaces can do nothing else afterwards."""

    def __init__(self, loop: Loop, subject: Subject, action: Exec, timeout: int, done: Done) -> None:
        self._done = done
        self._worker: Worker | None = Worker(
            loop, "rawpod-probe", lambda: _exec_in(subject, action.args, timeout), self._ended
        )

    @property
    def pid(self) -> int:
        return self._worker.pid if self._worker else 0

    def _ended(self, answer: bytes) -> None:
        self._worker = None
        result, _, message = answer.decode().partition("\n")
        self._done(result or UNKNOWN, message.strip("\n") if answer else "the probe was killed")

    def overdue(self, seconds: int) -> tuple[str, str]:
        return FAILURE, "the program cannot be ended"

    def close(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None


def _exec_in(subject: Subject, args: tuple[str, ...], timeout: int) -> bytes:
    """In the worker: a result and a message. A program that could not be run says nothing about the container."""
    from runtime.pod.health import MAX_OUTPUT, run_in

    try:
        code, output = run_in(subject.bundle, subject.cgroup, subject.encoded, args, timeout)
    except (RawpodError, OSError) as error:
        return f"{UNKNOWN}\n{error}".encode(errors="replace")[:MAX_OUTPUT]
    text = output.decode(errors="replace")[:MAX_OUTPUT]
    return f"{FAILURE if code else SUCCESS}\n{text if code else ''}".encode()
