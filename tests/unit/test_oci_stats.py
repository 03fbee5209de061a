"""The figures of `events`, on files as the kernel writes them, in runc's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cgroups.cgroup import Cgroup
from kernel.errors import BadInput
from runtime import jsontext
from runtime.oci.events import duration
from runtime.oci.stats import runc_stats

PRESSURE = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"
FILES = {
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.max": "16384\n",
    "memory.swap.current": "100\n",
    "memory.swap.max": "200\n",
    "memory.stat": "anon 1000\nfile 2000\nkernel 300\nsock 40\n",
    "memory.events": "low 0\nhigh 3\nmax 5\noom 1\noom_kill 2\noom_group_kill 0\n",
    "memory.pressure": PRESSURE,
    "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
    "cpuset.cpus.effective": "0-2,5\n",
    "cpuset.mems.effective": "0\n",
    "pids.current": "3\n",
    "pids.max": "100\n",
    "pids.events": "max 9\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=0 dbytes=0 dios=0\n",
    "io.pressure": PRESSURE,
    "hugetlb.2MB.current": "0\n",
    "hugetlb.2MB.rsvd.current": "2097152\n",
    "hugetlb.2MB.rsvd.events": "max 4\n",
    "hugetlb.1GB.current": "0\n",
    "hugetlb.1GB.events": "max 0\n",
}
PSI = {
    "some": {"avg10": 1.5, "avg60": 0.25, "avg300": 0.0, "total": 77},
    "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 5},
}


def shown(directory: Path, **changes: str) -> dict[str, object]:
    """What is printed for a cgroup with these files, as read by a caller; names with "__" for "."."""
    for name, text in (FILES | {name.replace("__", "."): text for name, text in changes.items()}).items():
        (directory / name).write_text(text)
    found: dict[str, object] = json.loads(jsontext.dumps(runc_stats(Cgroup(str(directory)))))
    return found


def test_every_part_is_there_in_the_older_units(tmp_path: Path) -> None:
    zeros = (
        "cpu_exclusive mem_hardwall mem_exclusive memory_migrate memory_spread_page memory_spread_slab "
        "memory_pressure sched_load_balance sched_relax_domain_level"
    )
    assert shown(tmp_path) == {
        "cpu": {
            "usage": {"total": 30_000, "kernel": 10_000, "user": 20_000},
            "throttling": {"periods": 4, "throttledPeriods": 2, "throttledTime": 7000},
        },
        "cpuset": {"cpus": [0, 1, 2, 5], "mems": [0]} | dict.fromkeys(zeros.split(), 0),
        "memory": {
            "cache": 2000,
            "usage": {"limit": 16384, "usage": 4096, "max": 8192, "failcnt": 0},
            "swap": {"limit": 16584, "usage": 4196, "failcnt": 0},
            "kernel": {"limit": 0, "usage": 300, "failcnt": 0},
            "kernelTCP": {"limit": 0, "usage": 40, "failcnt": 0},
            "raw": {"anon": 1000, "file": 2000, "kernel": 300, "sock": 40},
            "event_count": {"low": 0, "high": 3, "max": 5, "oom": 1, "oom_kill": 2, "oom_group_kill": 0},
            "psi": PSI,
        },
        "pids": {"current": 3, "limit": 100},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"major": 8, "op": "Read", "value": 1},
                {"major": 8, "op": "Write", "value": 2},
            ],
            "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 3}, {"major": 8, "op": "Write"}],
            "psi": PSI,
        },
        "hugetlb": {"1GB": {"failcnt": 0}, "2MB": {"usage": 2097152, "failcnt": 4}},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def test_no_limit_is_the_largest_number_and_for_tasks_none(tmp_path: Path) -> None:
    found = shown(tmp_path, memory__max="max\n", memory__swap__max="max\n", pids__max="max\n")
    memory = found["memory"]
    assert isinstance(memory, dict)
    assert memory["usage"]["limit"] == memory["swap"]["limit"] == 2**64 - 1
    assert found["pids"] == {"current": 3}


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1.5h", 5400), ("7us", 7e-6)])
def test_intervals_are_written_as_in_go(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5x", "0s", "-1s", "5s3", "1.2.3s"])
def test_an_interval_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        duration(text)
