"""The figures of a container in the form of runc's `events --stats` (its types/events.go), which callers parse.

That form is cgroup v1's: CPU time in nanoseconds, swap and memory counted together, no limit as the largest number.
Properties that v2 has no figure for are left out where runc leaves them out, and 0 where it writes 0.
"""

from __future__ import annotations

from cgroups import stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgroups.cgroup import Cgroup

    Json = dict[str, object]

_UNLIMITED = 2**64 - 1
_CPUSET_FLAGS = (
    "cpu_exclusive mem_hardwall mem_exclusive memory_migrate memory_spread_page memory_spread_slab memory_pressure "
    "sched_load_balance sched_relax_domain_level"
)


def runc_stats(cgroup: Cgroup) -> Json:
    """One reading. Raises NotFound if the cgroup is gone."""
    read = stats.read(cgroup)
    pressure = {name: _pressure(lines) for name, lines in read.pressure.items()}
    return {
        "cpu": _cpu(read.cpu, pressure.get("cpu")),
        "cpuset": _cpuset(cgroup),
        "memory": _memory(cgroup, pressure.get("memory")),
        "pids": _pids(cgroup, read.pids),
        "blkio": _blkio(read.io or {}, pressure.get("io")),
        "hugetlb": {size: _hugetlb(figures) for size, figures in stats.hugetlb(cgroup).items()},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpu(cpu: stats.Cpu | None, pressure: Json | None) -> Json:
    if cpu is None:
        return {"usage": {"kernel": 0, "user": 0}, "throttling": {}}
    throttling = {
        "periods": cpu.periods or 0,
        "throttledPeriods": cpu.throttled_periods or 0,
        "throttledTime": (cpu.throttled_us or 0) * 1000,
    }
    usage = {"total": cpu.usage_us * 1000, "kernel": cpu.system_us * 1000, "user": cpu.user_us * 1000}
    found: Json = {"usage": usage, "throttling": _without_zeros(throttling)}
    return found | ({"psi": pressure} if pressure else {})


def _cpuset(cgroup: Cgroup) -> Json:
    found: Json = {
        name: stats.numbers(text)
        for name, file in (("cpus", "cpuset.cpus.effective"), ("mems", "cpuset.mems.effective"))
        if (text := stats.text(cgroup, file))
    }
    return found | dict.fromkeys(_CPUSET_FLAGS.split(), 0)


def _memory(cgroup: Cgroup, pressure: Json | None) -> Json:
    raw = stats.figures(cgroup, "memory.stat")
    usage = _entry(cgroup, "memory")
    swap = _entry(cgroup, "memory.swap")
    if swap["limit"] != _UNLIMITED:
        swap["limit"] = min(swap["limit"] + usage["limit"], _UNLIMITED)
    # A peak of both together is not known: those of each need not have been at the same time.
    swap |= {"usage": swap["usage"] + usage["usage"], "max": 0}
    found: Json = {
        "cache": raw.get("file", 0),
        "usage": _with_zero("failcnt", usage),
        "swap": _with_zero("failcnt", swap),
        "kernel": {"limit": 0, "usage": raw.get("kernel", 0), "failcnt": 0},
        "kernelTCP": {"limit": 0, "usage": raw.get("sock", 0), "failcnt": 0},
        "raw": raw,
        "event_count": stats.figures(cgroup, "memory.events"),
    }
    return found | ({"psi": pressure} if pressure else {})


def _entry(cgroup: Cgroup, prefix: str) -> dict[str, int]:
    current = stats.number(cgroup, f"{prefix}.current")
    limit = stats.number(cgroup, f"{prefix}.max")
    if current is None:
        return {"limit": 0, "usage": 0, "max": 0}
    peak = stats.number(cgroup, f"{prefix}.peak")
    return {"limit": _UNLIMITED if limit in (None, stats.MAX) else limit, "usage": current, "max": peak or 0}


def _pids(cgroup: Cgroup, pids: stats.Pids | None) -> Json:
    if pids is None:
        return {"current": len(cgroup.all_processes())}
    return _without_zeros({"current": pids.current, "limit": 0 if pids.max == stats.MAX else pids.max})


def _blkio(devices: dict[str, stats.Io], pressure: Json | None) -> Json:
    found: Json = {
        "ioServiceBytesRecursive": _entries(devices, "rbytes", "wbytes"),
        "ioServicedRecursive": _entries(devices, "rios", "wios"),
    }
    found = {name: entries for name, entries in found.items() if entries}
    return found | ({"psi": pressure} if pressure else {})


def _entries(devices: dict[str, stats.Io], read: str, written: str) -> list[Json]:
    found: list[Json] = []
    for device, figures in devices.items():
        major, _, minor = device.partition(":")
        for op, field in (("Read", read), ("Write", written)):
            entry = {"major": int(major), "minor": int(minor), "op": op, "value": getattr(figures, field)}
            found.append({key: value for key, value in entry.items() if value})
    return found


def _hugetlb(figures: tuple[int, int]) -> Json:
    usage, refused = figures
    return _without_zeros({"usage": usage}) | {"failcnt": refused}


def _pressure(lines: dict[str, stats.Pressure]) -> Json:
    return {
        kind: {"avg10": line.avg10, "avg60": line.avg60, "avg300": line.avg300, "total": line.total_us}
        for kind, line in lines.items()
    }


def _without_zeros(figures: dict[str, int]) -> Json:
    return {key: value for key, value in figures.items() if value}


def _with_zero(name: str, entry: dict[str, int]) -> Json:
    return {"limit": entry["limit"]} | _without_zeros({"usage": entry["usage"], "max": entry["max"]}) | {name: 0}
