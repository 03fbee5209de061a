"""The event stream: every system call, netlink request and cgroup write, to whoever listens.

An instrument is a function of one `Event`. With none subscribed a call pays one test of an empty list. An instrument
that raises is reported on the standard error and dropped, so that an observer never breaks what it observes.
"""

from __future__ import annotations

import os
import sys
import time

from kernel.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    Instrument = Callable[["Event"], None]


class Event(Record):
    """One thing asked of the kernel.

    `time` is CLOCK_MONOTONIC in seconds, `errno` is 0 on success, `pid` is the asking process as it sees itself.
    """

    name: str
    arguments: Mapping[str, object]
    result: object
    errno: int
    time: float
    pid: int


instruments: list[Instrument] = []


def subscribe(instrument: Instrument) -> Callable[[], None]:
    """Send every event to `instrument` from now on; the answer takes it off again."""
    instruments.append(instrument)

    def unsubscribe() -> None:
        if instrument in instruments:
            instruments.remove(instrument)

    return unsubscribe


def observed() -> bool:
    """Whether anybody listens: ask before building costly arguments."""
    return bool(instruments)


def emit(name: str, arguments: Mapping[str, object], result: object = None, errno: int = 0) -> None:
    """Tell every instrument of one finished call."""
    if instruments:
        deliver(Event(name, arguments, result, errno, time.monotonic(), os.getpid()))


def deliver(event: Event) -> None:
    """Hand an event to every instrument; one that raises is dropped. Also for events from another process."""
    for instrument in tuple(instruments):
        try:
            instrument(event)
        except Exception as error:
            instruments.remove(instrument)
            print(f"rawpod: instrument {instrument!r} dropped: {error!r}", file=sys.stderr)


class report:
    """Emit one event for the work inside: for netlink requests, cgroup writes and other seams to the kernel."""

    __slots__ = ("_arguments", "_name")

    def __init__(self, name: str, **arguments: object) -> None:
        self._name = name
        self._arguments = arguments

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            emit(self._name, self._arguments)
        elif isinstance(error, Exception):
            emit(self._name, self._arguments, None, getattr(error, "errno", None) or -1)
