"""Limits that hold: written to a kernel that has every controller on v2, read back, and run into."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cgroups import stats
from cgroups.cgroup import Cgroup
from cgroups.controllers import IoMax, Limits
from cgroups.update import update
from kernel.errors import BadInput, Conflict

Spawn = Callable[[Cgroup, str], "subprocess.Popen[bytes]"]

FORK_BOMB = "bomb() { bomb | bomb & }; bomb; sleep 1000"


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a shell that runs a script once it is in the cgroup; whatever is in there is killed at the end."""
    with ExitStack() as stack:

        def start(cgroup: Cgroup, script: str) -> subprocess.Popen[bytes]:
            child = subprocess.Popen(
                ["sh", "-c", f"read go; {script}"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            stack.enter_context(child)
            stack.callback(cgroup.wait_empty, 10)
            stack.callback(cgroup.kill)
            cgroup.add(child.pid)
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
            return child

        yield start


def _text(cgroup: Cgroup, name: str) -> str:
    return Path(cgroup.file(name)).read_text().strip()


def _disk() -> tuple[int, int]:
    for entry in sorted(Path("/sys/block").iterdir()):
        if not entry.name.startswith(("loop", "ram", "zram")):
            major, minor = (entry / "dev").read_text().split(":")
            return int(major), int(minor)
    pytest.skip("needs a disk")


def test_every_limit_is_read_back_from_the_kernel(cgroup: Cgroup) -> None:
    major, minor = _disk()
    Limits(
        memory_max=64 << 20,
        memory_high=48 << 20,
        memory_low=16 << 20,
        swap_max=0,
        cpu_quota_us=50_000,
        cpu_period_us=100_000,
        cpu_burst_us=20_000,
        cpu_weight=200,
        cpu_idle=0,
        cpuset_cpus="0",
        cpuset_mems="0",
        pids_max=100,
        io_weight=500,
        io_max=(IoMax(major, minor, rbps=1 << 20, wiops=50),),
        hugetlb={"2MB": 4 << 20},
        unified={"memory.oom.group": "1"},
    ).apply(cgroup)
    expected = {
        "memory.max": str(64 << 20),
        "memory.high": str(48 << 20),
        "memory.low": str(16 << 20),
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
        "cpu.max.burst": "20000",
        "cpu.idle": "0",
        "cpu.weight": "200",
        "cpuset.cpus.effective": "0",
        "cpuset.mems.effective": "0",
        "pids.max": "100",
        "io.max": f"{major}:{minor} rbps=1048576 wbps=max riops=max wiops=50",
        "hugetlb.2MB.max": str(4 << 20),
        "hugetlb.2MB.rsvd.max": str(4 << 20),
        "memory.oom.group": "1",
    }
    assert {name: _text(cgroup, name) for name in expected} == expected
    weight = "io.bfq.weight" if Path(cgroup.file("io.bfq.weight")).exists() else "io.weight"
    assert _text(cgroup, weight).splitlines()[0].endswith("500" if weight == "io.bfq.weight" else "4950")


def test_a_limit_is_lifted_again(cgroup: Cgroup) -> None:
    Limits(memory_max=64 << 20, pids_max=10, cpu_quota_us=50_000).apply(cgroup)
    Limits(memory_max=-1, pids_max=-1, cpu_quota_us=-1).apply(cgroup)
    assert [_text(cgroup, name) for name in ("memory.max", "pids.max", "cpu.max")] == ["max", "max", "max 100000"]


def test_an_idle_group_is_idle_and_has_a_weight_again_afterwards(cgroup: Cgroup) -> None:
    Limits(cpu_idle=1, cpu_weight=200).apply(cgroup)
    assert _text(cgroup, "cpu.idle") == "1"
    with pytest.raises(BadInput, match=r"set cpu\.idle to 0 first"):
        update(cgroup, Limits(cpu_weight=300))
    update(cgroup, Limits(cpu_idle=0, cpu_weight=300))
    assert (_text(cgroup, "cpu.idle"), _text(cgroup, "cpu.weight")) == ("0", "300")


def test_an_update_keeps_what_it_does_not_name(cgroup: Cgroup) -> None:
    Limits(cpu_quota_us=50_000, cpu_period_us=100_000, cpu_burst_us=20_000, memory_max=64 << 20).apply(cgroup)
    update(cgroup, Limits(cpu_quota_us=30_000))
    assert _text(cgroup, "cpu.max") == "30000 100000"
    update(cgroup, Limits(cpu_period_us=50_000))
    assert _text(cgroup, "cpu.max") == "30000 50000"
    update(cgroup, Limits(cpu_quota_us=10_000, cpu_burst_us=5_000))
    assert (_text(cgroup, "cpu.max"), _text(cgroup, "cpu.max.burst")) == ("10000 50000", "5000")
    update(cgroup, Limits(cpu_quota_us=40_000, cpu_burst_us=40_000))
    assert (_text(cgroup, "cpu.max"), _text(cgroup, "cpu.max.burst")) == ("40000 50000", "40000")
    assert _text(cgroup, "memory.max") == str(64 << 20)


def test_memory_is_not_lowered_below_its_use_when_asked_to_check(cgroup: Cgroup, spawn: Spawn) -> None:
    Limits(memory_max=64 << 20, swap_max=0).apply(cgroup)
    child = spawn(cgroup, "data=$(head -c 8M /dev/zero | tr '\\0' x); exec <&-; sleep 1000")
    while int(_text(cgroup, "memory.current")) < 8 << 20:
        assert child.poll() is None
    with pytest.raises(Conflict, match="in use"):
        update(cgroup, Limits(memory_max=4 << 20, memory_check=True))
    assert _text(cgroup, "memory.max") == str(64 << 20)
    assert cgroup.oom_kills() == 0


def test_page_cache_is_reclaimed_and_nobody_killed_when_memory_is_lowered(cgroup: Cgroup, spawn: Spawn) -> None:
    Limits(memory_max=64 << 20, swap_max=0).apply(cgroup)
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:  # on the disk: what is in a tmpfs cannot be reclaimed
        child = spawn(cgroup, f"head -c 32M /dev/zero > {file.name}; sync {file.name}; exec sleep 1000")
        comm = Path(f"/proc/{child.pid}/comm")
        while int(_text(cgroup, "memory.current")) < 24 << 20 or "sleep" not in comm.read_text():
            assert child.poll() is None
        update(cgroup, Limits(memory_max=8 << 20))
    assert _text(cgroup, "memory.max") == str(8 << 20)
    assert child.poll() is None
    assert cgroup.oom_kills() == 0


def test_values_the_kernel_refuses_are_bad_input(cgroup: Cgroup) -> None:
    with pytest.raises(BadInput, match=r"cpuset\.cpus"):
        Limits(cpuset_cpus="not-a-list").apply(cgroup)
    with pytest.raises(BadInput, match="whole disk"):
        Limits(io_max=(IoMax(250, 999, rbps=1),)).apply(cgroup)


def test_a_process_that_takes_too_much_memory_is_killed_and_counted(cgroup: Cgroup, spawn: Spawn) -> None:
    Limits(memory_max=16 << 20, swap_max=0).apply(cgroup)
    assert cgroup.oom_kills() == 0
    child = spawn(cgroup, "exec tail /dev/zero")  # keeps the last line, which never ends
    assert child.wait(60) == -signal.SIGKILL
    assert cgroup.oom_kills() == 1
    read = stats.read(cgroup)
    assert read.memory is not None
    assert (read.memory.max, read.memory.oom_kills) == (16 << 20, 1)
    assert read.memory.peak is None or read.memory.peak <= 16 << 20


def test_a_fork_bomb_stays_within_its_limit_and_is_cleared_within_5_seconds(cgroup: Cgroup, spawn: Spawn) -> None:
    Limits(pids_max=30).apply(cgroup)
    descriptor = os.open(cgroup.file("pids.events"), os.O_RDONLY)
    try:
        before = os.read(descriptor, 100)
        child = spawn(cgroup, FORK_BOMB)
        poller = select.poll()
        poller.register(descriptor, select.POLLPRI)
        assert poller.poll(60_000), "no fork was refused"
        assert os.pread(descriptor, 100, 0) != before
    finally:
        os.close(descriptor)
    for _ in range(100):
        assert int(_text(cgroup, "pids.current")) <= 30
    read = stats.read(cgroup).pids
    assert read is not None
    assert read.refused > 0
    cgroup.kill()
    assert cgroup.wait_empty(20), "the bomb outlived cgroup.kill"
    assert child.wait(10) == -signal.SIGKILL


def test_a_busy_process_gets_its_share_of_a_processor_and_no_more(cgroup: Cgroup, spawn: Spawn) -> None:
    Limits(cpu_quota_us=10_000, cpu_period_us=100_000).apply(cgroup)
    started = time.monotonic()
    spawn(cgroup, "exec timeout 2 sh -c 'while :; do :; done'").wait(60)
    took = time.monotonic() - started
    read = stats.read(cgroup).cpu
    assert read is not None
    assert read.throttled_periods is not None
    assert read.throttled_periods > 3
    # One period more than the share, what the kernel hands out in slices to each processor (5 ms), a quarter more:
    # it looks at the clock in ticks, which are long on an emulated machine. Without the limit it were ten times that.
    assert read.usage_us <= 1.25 * (took * 100_000 + 10_000) + 5_000 * (os.cpu_count() or 1)


def test_cpuset_confines_a_process_to_its_processors(cgroup: Cgroup, spawn: Spawn) -> None:
    child = spawn(cgroup, "exec sleep 1000")
    Limits(cpuset_cpus="0").apply(cgroup)
    assert os.sched_getaffinity(child.pid) == {0}


def test_kill_ends_everything_below_at_once(cgroup: Cgroup, spawn: Spawn) -> None:
    inner = cgroup.child("a").child("b").create()
    children = [spawn(inner, "sleep 1000 & sleep 1000") for _ in range(5)]
    cgroup.kill()
    assert cgroup.wait_empty(5)
    assert [child.wait(10) for child in children] == [-signal.SIGKILL] * 5


def test_stats_have_every_part(cgroup: Cgroup, spawn: Spawn) -> None:
    child = spawn(cgroup, "exec sleep 1000")
    read = stats.read(cgroup)
    assert read.memory is not None
    # A small process may still live on charges that its CPU keeps in stock.
    assert (read.memory.max, read.memory.oom_kills) == (-1, 0)
    assert read.pids is not None
    assert (read.pids.current, read.pids.max) == (1, -1)
    assert read.cpu is not None
    assert read.cpu.throttled_us == 0
    assert read.io is not None
    child.kill()
