"""`events`: figures of a container in intervals, and each time it runs out of memory; a JSON object a line."""

from __future__ import annotations

import os
import select
import sys
import time

from cgroups.cgroup import Cgroup
from kernel.errors import BadInput, Conflict, NotFound
from runtime import jsontext
from runtime.oci.options import Option
from runtime.oci.state import current
from runtime.oci.stats import runc_stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation

OPTIONS = (
    Option("--stats", help="print the figures once"),
    Option("--interval", "TIME", "time between figures, as 5s, 500ms or 1m30s (5s)"),
)
WORDS = "[OPTIONS] ID"
IN_ORDER = False

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def run(invocation: Invocation) -> int:
    """Print until the container has ended, or once."""
    container_id = invocation.container_id()
    invocation.no_more_words(1)
    interval = duration(invocation.parsed.text("--interval", "5s"))
    record = current(invocation.directory(container_id))
    if not record.status.can_kill:
        raise Conflict(f"container {container_id!r} is {record.status}, not running")
    if not record.cgroup:
        raise Conflict(f"container {container_id!r} has no cgroup of its own: it has no figures")
    cgroup = Cgroup(record.cgroup)
    if invocation.parsed.flag("--stats"):
        _print("stats", container_id, runc_stats(cgroup))
    else:
        _follow(container_id, cgroup, interval)
    return 0


def duration(text: str) -> float:
    """Seconds, from the form of Go's durations. Raises BadInput for another one, or no time at all."""
    total, number, unit = 0.0, "", ""
    try:
        for character in text + "0":
            if character in "0123456789.":
                if unit:
                    total, number, unit = total + float(number) * _UNITS[unit], "", ""
                number += character
            else:
                unit += character
    except (KeyError, ValueError):
        total = 0
    if total <= 0 or number != "0":
        raise BadInput(f"option --interval: {text!r} is no time", remedy="as 5s, 500ms or 1m30s")
    return total


def _follow(container_id: str, cgroup: Cgroup, interval: float) -> None:
    life = cgroup.events_fd()
    memory = -1
    poller = select.poll()
    poller.register(life, select.POLLPRI)
    try:
        memory = os.open(cgroup.file("memory.events"), os.O_RDONLY | os.O_CLOEXEC)
        poller.register(memory, select.POLLPRI)
    except FileNotFoundError:
        pass  # without the memory controller there is no limit to run into
    try:
        killed = cgroup.oom_kills()
        due = time.monotonic() + interval
        while True:
            poller.poll(max(0.0, due - time.monotonic()) * 1000)
            now = cgroup.oom_kills()
            if now > killed:
                _print("oom", container_id)
            killed = max(killed, now)
            if not cgroup.populated():
                return
            if time.monotonic() >= due:
                due += interval
                _print("stats", container_id, runc_stats(cgroup))
    except NotFound:
        return
    finally:
        os.close(life)
        if memory >= 0:
            os.close(memory)


def _print(kind: str, container_id: str, data: dict[str, object] | None = None) -> None:
    line: dict[str, object] = {"type": kind, "id": container_id} | ({"data": data} if data is not None else {})
    sys.stdout.write(jsontext.dumps(line).decode() + "\n")
    sys.stdout.flush()
