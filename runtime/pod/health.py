"""Whether a container does well, found out by running a test in it: an image's Healthcheck, as Docker obeys it.

What a test says is kept, shown by `rawpod ps` and `rawpod inspect`, and has no other consequence: Kubernetes has probes
of its own for that, and kubelet takes no notice of a Healthcheck either.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cgroups.cgroup import Cgroup
from kernel.errors import RawpodError
from kernel.pidfd import wait_pidfd
from kernel.record import Record, Struct
from runtime import spec, state
from runtime.pod.image_config import Health
from runtime.pod.loop import Loop, Timer
from runtime.pod.records import Json, timestamp
from runtime.pod.worker import Worker

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"

MAX_OUTPUT = 4096
KEPT = 5
TIMED_OUT = 124
"""Exit code of a test that took too long, as timeout(1) has it."""

# A worker has this long to notice that its test took too long.
_PATIENCE = 10.0


class Result(Record):
    """What one test said: its exit code, the beginning of its output, when it began and ended."""

    code: int
    output: str
    start: str
    end: str

    def to_json(self) -> Json:
        return {"exitCode": self.code, "output": self.output, "start": self.start, "end": self.end}


class Verdict(Struct):
    """What is to be thought of a container, from its tests' results. Pure."""

    health: Health
    status: str = STARTING
    failing_streak: int = 0
    results: tuple[Result, ...] = ()
    passed: bool = False

    def pause(self, age: float) -> float:
        """Seconds until the next test of a container that runs for `age` seconds."""
        return self.health.start_interval if self._is_young(age) else self.health.interval

    def add(self, result: Result, age: float) -> None:
        """Count the result of a test that ended when the container ran for `age` seconds."""
        self.results = (*self.results, result)[-KEPT:]
        if result.code == 0:
            self.status, self.failing_streak, self.passed = HEALTHY, 0, True
        elif not self._is_young(age):
            self.failing_streak += 1
            if self.failing_streak >= self.health.retries:
                self.status = UNHEALTHY

    def _is_young(self, age: float) -> bool:
        return not self.passed and age < self.health.start_period

    def to_json(self) -> Json:
        return {
            "status": self.status,
            "failingStreak": self.failing_streak,
            "log": [result.to_json() for result in self.results],
        }


class Checker:
    """Tests one running container until it is closed. `changed` is called after each result."""

    def __init__(
        self, loop: Loop, health: Health, bundle: Path, cgroup: Cgroup, encoded: bytes, changed: Callable[[], None]
    ) -> None:
        self.verdict = Verdict(health)
        self._loop, self._changed = loop, changed
        self._test = lambda: _test_in(bundle, cgroup, encoded, health)
        self._born = time.monotonic()
        self._worker: Worker | None = None
        self._overdue: Timer | None = None
        self._next = loop.call_later(self.verdict.pause(0.0), self._begin)

    @property
    def worker(self) -> int:
        """The pid of the process that a test is run by, 0 for none."""
        return self._worker.pid if self._worker else 0

    def _begin(self) -> None:
        start = timestamp()
        try:
            self._worker = Worker(self._loop, "rawpod-health", self._test, lambda answer: self._tested(start, answer))
        except (RawpodError, OSError) as error:  # no memory, no descriptors: nothing is known of the container
            self._count(Result(-1, str(error), start, timestamp()))
            return
        limit = self.verdict.health.timeout + _PATIENCE
        self._overdue = self._loop.call_later(limit, lambda: self._give_up(start))

    def _tested(self, start: str, answer: bytes) -> None:
        self._worker = None
        if self._overdue is not None:
            self._overdue.cancel()
        told: dict[str, Any] = json.loads(answer) if answer else {"code": -1, "output": "the test was killed"}
        self._count(Result(told["code"], told["output"], start, timestamp()))

    def _give_up(self, start: str) -> None:
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None
        self._count(Result(TIMED_OUT, "the test cannot be ended", start, timestamp()))

    def _count(self, result: Result) -> None:
        age = time.monotonic() - self._born
        self.verdict.add(result, age)
        self._next = self._loop.call_later(self.verdict.pause(age), self._begin)
        self._changed()

    def close(self) -> None:
        """No more tests. One that is run ends with the container that it is in, its worker is left to reap()."""
        self._next.cancel()
        if self._overdue is not None:
            self._overdue.cancel()
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None


# --- in the worker ----------------------------------------------------------------------------------------------


def _test_in(bundle: Path, cgroup: Cgroup, encoded: bytes, health: Health) -> bytes:
    try:
        code, output = run_in(bundle, cgroup, encoded, health.args, health.timeout)
    except RawpodError as error:
        code, output = error.exit_code, str(error).encode()
    except OSError as error:
        code, output = 125, str(error).encode()
    return json.dumps({"code": code, "output": output.decode(errors="replace")[:MAX_OUTPUT]}).encode()


def run_in(bundle: Path, cgroup: Cgroup, encoded: bytes, args: Sequence[str], timeout: float) -> tuple[int, bytes]:
    """A further process of the container, with its user, environment and limits: exit code and beginning of the output.

    One that takes longer than `timeout` is killed and has the exit code TIMED_OUT. The caller is a worker.
    """
    from runtime.exec import exec_in

    config = spec.load(encoded)
    process = config.process
    assert process is not None
    process.args, process.terminal = list(args), False
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    deadline = time.monotonic() + timeout
    child, _ = exec_in(state.load(bundle), cgroup, process, (null, writing, writing), linux=config.linux)
    os.close(writing)
    output, ended = _collect(reading, child.pidfd, deadline)
    if not ended:
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        wait_pidfd(child.pidfd)
        return TIMED_OUT, output[: MAX_OUTPUT // 2] + f"\nno answer within {timeout:g} s".encode()
    return wait_pidfd(child.pidfd).shell, output


def _collect(reading: int, pidfd: int, deadline: float) -> tuple[bytes, bool]:
    """The beginning of what the process writes, the rest is thrown away; and whether it ended before the deadline."""
    os.set_blocking(reading, False)
    output = b""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        ready = {fd for fd, _ in poll.poll(left * 1000)}
        if reading in ready:
            chunk = _read(reading)
            output = (output + chunk)[:MAX_OUTPUT]
            if not chunk:
                poll.unregister(reading)
        elif pidfd in ready:
            return output, True
    return output, False


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 64 * 1024)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
        return b""
