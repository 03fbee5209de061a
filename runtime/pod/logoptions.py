"""What of a log is wanted and how it is shown: the options of `kubectl logs` and of the door's `log`.

Source: PodLogOptions of the Kubernetes API; kubelet applies them in this order: the tail, the time, the bytes.
"""

from __future__ import annotations

import re
import time
from typing import Any

from kernel.errors import BadInput
from kernel.record import Record
from runtime.pod.logread import Entry

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)"
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)  # RFC 3339

Json = dict[str, Any]


def duration(text: str) -> float:
    """Seconds of a duration as Go writes it: 5s, 1h30m, 1.5h. Raises BadInput."""
    if not re.fullmatch(f"(?:{_PART})+", text, re.ASCII) and text != "0":
        raise BadInput(f'duration "{text}"', remedy="write a number with h, m, s or ms: 30s, 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))


def before_now(seconds: float) -> str:
    """The time so many seconds ago, as log entries have it."""
    whole, nanoseconds = divmod(time.time_ns() - int(seconds * 1e9), 1_000_000_000)
    if whole < -62135596800:  # the year 1
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{nanoseconds:09}Z"


def moment(text: str) -> str:
    """An RFC 3339 time, as log entries have it: in UTC, to the nanosecond. Raises BadInput."""
    from datetime import UTC, datetime

    match = _MOMENT.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        date, clock, fraction, zone = match.groups()
        utc = datetime.fromisoformat(f"{date}T{clock}{zone.upper()}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput(f'time "{text}"', remedy="write it as RFC 3339 does: 2026-01-02T03:04:05Z") from None
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{fraction or '':0<9}Z"


def attempts_back(container: Json, previous: bool) -> int:
    """How many attempts before the latest the wanted one is; `container` is its status.

    The previous one is the one that ended last: while a container waits to be restarted that is the latest there is.
    Raises BadInput, as Kubernetes does, if none has ended before.
    """
    if not previous:
        return 0
    if not (container.get("lastState") or {}).get("terminated"):
        raise BadInput(f"previous terminated container {container['name']!r} not found")
    return 0 if "waiting" in (container.get("state") or {}) else 1


class LogOptions(Record):
    """`since` is a time as entries have it; entries older than that are left out. `limit` counts shown bytes
    without prefixes, which are the client's."""

    tail: int | None = None
    since: str | None = None
    limit: int | None = None
    timestamps: bool = False


class Shown:
    """Entries as they are shown, one log or several; `done` once no more bytes are wanted."""

    def __init__(self, options: LogOptions) -> None:
        self._since, self._left, self._timestamps = options.since or "", options.limit, options.timestamps
        self._unfinished: set[tuple[str, str]] = set()

    @property
    def done(self) -> bool:
        return self._left is not None and self._left <= 0

    def text(self, entry: Entry, prefix: str = "") -> bytes:
        """The entry's text, b"" if it is left out; prefix and time stand before a line, not before its later parts."""
        if entry.time < self._since:
            return b""
        text, line = entry.output, (prefix, entry.stream)
        begins = line not in self._unfinished
        if begins and self._timestamps:
            text = f"{entry.time} ".encode() + text
        (self._unfinished.discard if entry.full else self._unfinished.add)(line)
        if self._left is not None:
            text = text[: self._left]
            self._left -= len(text)
        return prefix.encode() + text if begins and text else text
