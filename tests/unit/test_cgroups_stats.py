"""Figures of a cgroup, read from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgroups import stats
from cgroups.cgroup import Cgroup
from kernel.errors import NotFound

FILES = {
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.max": "max\n",
    "memory.swap.current": "0\n",
    "memory.stat": "anon 1000\nfile 2000\nkernel 100\n",
    "memory.events": "low 0\nhigh 3\nmax 5\noom 1\noom_kill 2\noom_group_kill 0\n",
    "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
    "pids.current": "3\n",
    "pids.max": "100\n",
    "pids.events": "max 9\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:0 \n",
    "memory.pressure": (
        "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"
    ),
}


@pytest.fixture
def cgroup(tmp_path: Path) -> Cgroup:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return Cgroup(str(tmp_path))


def test_all_figures_are_read(cgroup: Cgroup) -> None:
    read = stats.read(cgroup)
    assert read.memory == stats.Memory(4096, 8192, -1, 0, 1000, 2000, 2)
    assert read.cpu == stats.Cpu(30, 20, 10, 4, 2, 7)
    assert read.pids == stats.Pids(3, 100, 9)
    assert read.io == {"8:0": stats.Io(1, 2, 3, 4), "7:0": stats.Io(0, 0, 0, 0)}
    assert set(read.pressure) == {"memory"}
    assert read.pressure["memory"]["some"] == stats.Pressure(1.5, 0.25, 0.0, 77)
    assert cgroup.oom_kills() == 2
    plain = read.to_json()
    assert plain["pids"] == {"current": 3, "max": 100, "refused": 9}
    assert plain["pressure"]["memory"]["full"] == {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total_us": 5}  # type: ignore[index]
    assert plain["io"]["8:0"]["wbytes"] == 2  # type: ignore[index]


def test_what_has_no_controller_is_none(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 30\nuser_usec 20\nsystem_usec 10\n")
    read = stats.read(Cgroup(str(tmp_path)))
    assert (read.memory, read.pids, read.io, read.pressure) == (None, None, None, {})
    assert read.cpu == stats.Cpu(30, 20, 10, None, None, None)
    assert Cgroup(str(tmp_path)).oom_kills() == 0


def test_a_cgroup_that_is_gone_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        stats.read(Cgroup(str(tmp_path / "gone")))
