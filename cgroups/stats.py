"""What a cgroup uses: memory, CPU, tasks, block I/O, and pressure (PSI: Documentation/accounting/psi.rst)."""

from __future__ import annotations

import os

from cgroups.cgroup import Cgroup
from cgroups.files import read_raw
from kernel.errors import NotFound
from kernel.record import Record

MAX = -1


class Memory(Record):
    """Bytes; `max` is -1 without a limit. `file` is page cache, `anonymous` what processes allocated."""

    current: int
    peak: int | None
    max: int
    swap: int | None
    anonymous: int
    file: int
    oom_kills: int


class Cpu(Record):
    """Microseconds of CPU time. The figures of throttling are None without the cpu controller."""

    usage_us: int
    user_us: int
    system_us: int
    periods: int | None
    throttled_periods: int | None
    throttled_us: int | None


class Pids(Record):
    """Tasks; `max` is -1 without a limit. `refused` counts forks refused by this cgroup's limit."""

    current: int
    max: int
    refused: int


class Io(Record):
    """Bytes and operations on one block device ("8:0")."""

    rbytes: int
    wbytes: int
    rios: int
    wios: int


class Pressure(Record):
    """The share of time, in percent over 10, 60 and 300 s, in which tasks waited; `total_us` since the start."""

    avg10: float
    avg60: float
    avg300: float
    total_us: int


class Stats(Record):
    """One reading. A part is None where its controller is not enabled; `pressure` has the resources the kernel tracks.

    The keys of `pressure` are "cpu", "memory", "io" and "irq"; those of each are "some" and "full".
    """

    memory: Memory | None
    cpu: Cpu | None
    pids: Pids | None
    io: dict[str, Io] | None
    pressure: dict[str, dict[str, Pressure]]

    def to_json(self) -> dict[str, object]:
        """The figures as plain data, under the names that they have here."""
        return {name: _plain(getattr(self, name)) for name in self._fields}


def read(cgroup: Cgroup) -> Stats:
    """Read the figures of `cgroup` and all below it. Raises NotFound if it does not exist."""
    if not cgroup.exists():
        raise NotFound(f'no cgroup "{cgroup}"')
    return Stats(
        memory=_memory(cgroup),
        cpu=_cpu(cgroup),
        pids=_pids(cgroup),
        io=_io(cgroup),
        pressure={
            resource: lines
            for resource in ("cpu", "memory", "io", "irq")
            if (found := text(cgroup, f"{resource}.pressure")) and (lines := parse_pressure(found))
        },
    )


def parse_pressure(text: str) -> dict[str, Pressure]:
    """Parse "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" lines."""
    result = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        result[kind] = Pressure(
            float(values["avg10"]), float(values["avg60"]), float(values["avg300"]), int(values["total"])
        )
    return result


def parse_io(text: str) -> dict[str, Io]:
    """Parse io.stat; a device that never did anything is listed without figures."""
    result = {}
    for line in text.splitlines():
        device, *pairs = line.split()
        values = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs) if value.isdigit()}
        result[device] = Io(*(values.get(key, 0) for key in ("rbytes", "wbytes", "rios", "wios")))
    return result


def _memory(cgroup: Cgroup) -> Memory | None:
    current = number(cgroup, "memory.current")
    if current is None:
        return None
    detail = figures(cgroup, "memory.stat")
    limit = number(cgroup, "memory.max")
    return Memory(
        current=current,
        peak=number(cgroup, "memory.peak"),
        max=MAX if limit is None else limit,
        swap=number(cgroup, "memory.swap.current"),
        anonymous=detail.get("anon", 0),
        file=detail.get("file", 0),
        oom_kills=figures(cgroup, "memory.events").get("oom_kill", 0),
    )


def _cpu(cgroup: Cgroup) -> Cpu | None:
    # The core keeps cpu.stat's first lines for every cgroup; the controller adds those of throttling.
    found = figures(cgroup, "cpu.stat")
    if "usage_usec" not in found:
        return None
    return Cpu(
        usage_us=found["usage_usec"],
        user_us=found["user_usec"],
        system_us=found["system_usec"],
        periods=found.get("nr_periods"),
        throttled_periods=found.get("nr_throttled"),
        throttled_us=found.get("throttled_usec"),
    )


def _pids(cgroup: Cgroup) -> Pids | None:
    current, limit = number(cgroup, "pids.current"), number(cgroup, "pids.max")
    if current is None or limit is None:
        return None
    return Pids(current, limit, figures(cgroup, "pids.events").get("max", 0))


def _io(cgroup: Cgroup) -> dict[str, Io] | None:
    found = text(cgroup, "io.stat")
    return None if found is None else parse_io(found)


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return {name: getattr(value, name) for name in value._fields}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def text(cgroup: Cgroup, name: str) -> str | None:
    """The file's text; None where the controller is off (ENOENT) or pressure is not tracked (EOPNOTSUPP)."""
    try:
        return read_raw(cgroup.file(name))
    except OSError:
        return None


def number(cgroup: Cgroup, name: str) -> int | None:
    """A file with one number, MAX for "max"; None as `text` has it."""
    found = text(cgroup, name)
    if found is None:
        return None
    return MAX if found.strip() == "max" else int(found)


def figures(cgroup: Cgroup, name: str) -> dict[str, int]:
    """A file of names and numbers, a line each; nothing where `text` has None."""
    found = text(cgroup, name) or ""
    return {key: int(value) for key, value in (line.split(" ", 1) for line in found.splitlines())}


def numbers(text: str) -> list[int]:
    """What a list like "0-2,7" holds (cpuset(7), "List format")."""
    found: list[int] = []
    for span in text.strip().split(",") if text.strip() else ():
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def hugetlb(cgroup: Cgroup) -> dict[str, tuple[int, int]]:
    """By page size ("2MB"): bytes that are reserved, or in use on kernels without reservations, and how often more was
    refused."""
    names = os.listdir(cgroup.path)
    found = {}
    for name in sorted(names):
        kind, _, rest = name.partition(".")
        size, _, last = rest.partition(".")
        if kind == "hugetlb" and last == "current":
            prefix = f"hugetlb.{size}.rsvd" if f"hugetlb.{size}.rsvd.current" in names else f"hugetlb.{size}"
            refused = figures(cgroup, f"{prefix}.events").get("max", 0)
            found[size] = (number(cgroup, f"{prefix}.current") or 0, refused)
    return found
