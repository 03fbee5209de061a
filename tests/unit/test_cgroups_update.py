"""New limits for a cgroup in use: what is written, and in which order, on files as the kernel has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cgroups.cgroup import Cgroup
from cgroups.controllers import IoMax, Limits
from cgroups.update import update
from kernel import events
from kernel.errors import BadInput, Conflict, ControllerMissing

MIB = 1 << 20
FRESH = {
    "memory.low": "0",
    "memory.high": "max",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.current": str(10 * MIB),
    "memory.swap.current": str(MIB),
    "cpu.max": "max 100000",
    "cpu.max.burst": "0",
    "cpu.weight": "100",
    "io.max": "",
}


def _updated(directory: Path, limits: Limits, **held: str) -> list[tuple[str, str]]:
    """The writes of an update to a cgroup whose files say `held`, names with "_" for "."."""
    _fill(directory, {**FRESH, **{name.replace("_", "."): text for name, text in held.items()}})
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    try:
        update(Cgroup(str(directory)), limits)
    finally:
        unsubscribe()
    return [(Path(str(event.arguments["path"])).name, str(event.arguments["value"])) for event in seen]


def _fill(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (directory / name).write_text(f"{text}\n")


def test_memory_that_is_lowered_is_taken_before_swap(tmp_path: Path) -> None:
    limits = Limits(memory_max=64 * MIB, memory_high=32 * MIB, swap_max=0)
    assert [name for name, _ in _updated(tmp_path, limits)] == ["memory.high", "memory.max", "memory.swap.max"]


def test_memory_that_is_raised_is_raised_from_the_outermost_limit_in(tmp_path: Path) -> None:
    limits = Limits(memory_max=64 * MIB, memory_high=32 * MIB, swap_max=8 * MIB)
    held = {"memory_max": str(MIB), "memory_high": str(MIB), "memory_swap_max": "0"}
    assert [name for name, _ in _updated(tmp_path, limits, **held)] == ["memory.swap.max", "memory.max", "memory.high"]


def test_swap_that_is_raised_comes_before_memory_that_is_lowered(tmp_path: Path) -> None:
    # The other way round the kernel would kill what it may now swap out.
    limits = Limits(memory_max=MIB, swap_max=-1)
    assert _updated(tmp_path, limits, memory_max=str(64 * MIB), memory_swap_max="0") == [
        ("memory.swap.max", "max"),
        ("memory.max", str(MIB)),
    ]


def test_a_quota_alone_keeps_the_period_and_a_period_alone_the_quota(tmp_path: Path) -> None:
    assert _updated(tmp_path, Limits(cpu_quota_us=20_000), cpu_max="10000 50000") == [("cpu.max", "20000")]
    assert _updated(tmp_path, Limits(cpu_period_us=50_000), cpu_max="10000 100000") == [("cpu.max", "10000 50000")]
    assert _updated(tmp_path, Limits(cpu_period_us=50_000)) == [("cpu.max", "max 50000")]


def test_a_burst_is_written_where_the_quota_at_that_moment_allows_it(tmp_path: Path) -> None:
    lowered = _updated(tmp_path, Limits(cpu_quota_us=5_000, cpu_burst_us=2_000), cpu_max="50000 100000")
    assert [name for name, _ in lowered] == ["cpu.max.burst", "cpu.max"]
    raised = _updated(tmp_path, Limits(cpu_quota_us=50_000, cpu_burst_us=20_000), cpu_max="5000 100000")
    assert [name for name, _ in raised] == ["cpu.max", "cpu.max.burst"]


@pytest.mark.parametrize("limits", [Limits(memory_max=10 * MIB), Limits(swap_max=0)])
def test_a_limit_below_what_is_in_use_is_refused_when_asked_to_check(limits: Limits, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="bytes in use"):
        _updated(tmp_path, limits.replace(memory_check=True))
    assert _updated(tmp_path, limits) != []


def test_an_update_that_fails_leaves_the_limits_that_were(tmp_path: Path) -> None:
    with pytest.raises(ControllerMissing, match=r"pids\.max"):
        _updated(tmp_path, Limits(memory_max=MIB, cpu_weight=50, pids_max=3), memory_max=str(64 * MIB))
    assert (tmp_path / "memory.max").read_text().strip() == str(64 * MIB)
    assert (tmp_path / "cpu.weight").read_text().strip() == "100"


def test_a_bad_value_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        _updated(tmp_path, Limits(memory_max=MIB, cpu_weight=0))
    assert (tmp_path / "memory.max").read_text() == "max\n"


def test_devices_are_updated_line_by_line(tmp_path: Path) -> None:
    limits = Limits(io_max=(IoMax(8, 0, rbps=1), IoMax(8, 16, wiops=-1)))
    assert _updated(tmp_path, limits) == [("io.max", "8:0 rbps=1"), ("io.max", "8:16 wiops=max")]
