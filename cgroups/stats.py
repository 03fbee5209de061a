"""What a cgroup uses: memory, CPU, tasks, block I/O, and pressure (PSI: Documentation/accounting/psi.rst)."""

from __future__ import annotations

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
            if (text := _text(cgroup, f"{resource}.pressure")) and (lines := parse_pressure(text))
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
    current = _number(cgroup, "memory.current")
    if current is None:
        return None
    detail = _figures(cgroup, "memory.stat")
    limit = _number(cgroup, "memory.max")
    return Memory(
        current=current,
        peak=_number(cgroup, "memory.peak"),
        max=MAX if limit is None else limit,
        swap=_number(cgroup, "memory.swap.current"),
        anonymous=detail.get("anon", 0),
        file=detail.get("file", 0),
        oom_kills=_figures(cgroup, "memory.events").get("oom_kill", 0),
    )


def _cpu(cgroup: Cgroup) -> Cpu | None:
    # The core keeps cpu.stat's first lines for every cgroup; the controller adds those of throttling.
    figures = _figures(cgroup, "cpu.stat")
    if "usage_usec" not in figures:
        return None
    return Cpu(
        usage_us=figures["usage_usec"],
        user_us=figures["user_usec"],
        system_us=figures["system_usec"],
        periods=figures.get("nr_periods"),
        throttled_periods=figures.get("nr_throttled"),
        throttled_us=figures.get("throttled_usec"),
    )


def _pids(cgroup: Cgroup) -> Pids | None:
    current, limit = _number(cgroup, "pids.current"), _number(cgroup, "pids.max")
    if current is None or limit is None:
        return None
    return Pids(current, limit, _figures(cgroup, "pids.events").get("max", 0))


def _io(cgroup: Cgroup) -> dict[str, Io] | None:
    text = _text(cgroup, "io.stat")
    return None if text is None else parse_io(text)


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return {name: getattr(value, name) for name in value._fields}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _text(cgroup: Cgroup, name: str) -> str | None:
    """The file's text; None where the controller is off (ENOENT) or pressure is not tracked (EOPNOTSUPP)."""
    try:
        return read_raw(cgroup.file(name))
    except OSError:
        return None


def _number(cgroup: Cgroup, name: str) -> int | None:
    text = _text(cgroup, name)
    if text is None:
        return None
    return MAX if text.strip() == "max" else int(text)


def _figures(cgroup: Cgroup, name: str) -> dict[str, int]:
    text = _text(cgroup, name) or ""
    return {key: int(value) for key, value in (line.split(" ", 1) for line in text.splitlines())}
