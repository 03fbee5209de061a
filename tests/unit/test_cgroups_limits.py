"""Limits: what they need, what is refused, and what is written where, in order."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgroups.cgroup import Cgroup
from cgroups.controllers import IoMax, IoWeight, Limits, RdmaMax, io_weight_from_bfq, swap_alone, weight_from_shares
from cgroups.files import refusal
from cgroups.hierarchy import Hierarchy
from kernel import events
from kernel.errors import BadInput, Conflict, ControllerMissing, HostError, NotFound, NotSupported, SystemCallError

EVERYTHING = Limits(
    memory_max=64 << 20,
    memory_high=48 << 20,
    memory_low=16 << 20,
    swap_max=0,
    cpu_quota_us=50_000,
    cpu_period_us=100_000,
    cpu_burst_us=20_000,
    cpu_weight=200,
    cpu_idle=0,
    cpuset_cpus="0-1",
    cpuset_mems="0",
    pids_max=100,
    io_weight=500,
    io_device_weights=(IoWeight(8, 16, 1000),),
    io_max=(IoMax(8, 0, rbps=1 << 20, wiops=50), IoMax(8, 16, wbps=-1)),
    hugetlb={"2MB": 4 << 20},
    rdma=(RdmaMax("mlx5_0", 2, 2**31),),
    unified={"hugetlb.1GB.max": "0", "memory.oom.group": "1"},
)

HYBRID = Hierarchy(
    mount="/sys/fs/cgroup/unified",
    root="/sys/fs/cgroup/unified",
    controllers=frozenset({"hugetlb"}),
    v1_controllers={"memory": "/sys/fs/cgroup/memory", "blkio": None},
    own="/sys/fs/cgroup/unified",
    hybrid=True,
)


def test_limits_are_written_in_an_order_that_never_kills_what_could_be_reclaimed() -> None:
    assert list(EVERYTHING.files()) == [
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("memory.low", "16777216"),
        ("memory.high", "50331648"),
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("cpu.idle", "0"),
        ("cpu.weight", "200"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "20000"),
        ("pids.max", "100"),
        ("io.bfq.weight", "500"),
        ("io.bfq.weight", "8:16 1000"),
        ("io.max", "8:0 rbps=1048576 wiops=50"),
        ("io.max", "8:16 wbps=max"),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
        ("rdma.max", "mlx5_0 hca_handle=2 hca_object=max"),
        ("hugetlb.1GB.max", "0"),
        ("memory.oom.group", "1"),
    ]


def test_apply_writes_what_files_says(tmp_path: Path) -> None:
    limits = Limits(memory_max=-1, pids_max=7)
    for name in ("memory.max", "pids.max"):
        (tmp_path / name).touch()
    limits.apply(Cgroup(str(tmp_path)))
    assert (tmp_path / "memory.max").read_text() == "max"
    assert (tmp_path / "pids.max").read_text() == "7"


def test_a_file_that_is_not_there_is_a_missing_controller_and_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(ControllerMissing) as caught:
        Limits(pids_max=7).apply(Cgroup(str(tmp_path)))
    assert caught.value.controller == "pids"
    assert list(tmp_path.iterdir()) == []


def test_the_controllers_that_limits_need() -> None:
    assert EVERYTHING.needs() == {"cpuset", "memory", "cpu", "pids", "io", "hugetlb", "rdma"}
    assert Limits().needs() == frozenset()
    assert Limits(unified={"cgroup.max.depth": "3"}).needs() == frozenset()
    assert EVERYTHING.missing(["cpu", "pids", "hugetlb"]) == {"cpuset", "memory", "io", "rdma"}


def test_without_drops_the_limits_of_the_controllers_and_no_others() -> None:
    left = EVERYTHING.without({"memory", "io", "cpuset", "rdma"})
    assert left == Limits(
        cpu_quota_us=50_000,
        cpu_period_us=100_000,
        cpu_burst_us=20_000,
        cpu_weight=200,
        cpu_idle=0,
        pids_max=100,
        hugetlb={"2MB": 4 << 20},
        unified={"hugetlb.1GB.max": "0"},
    )
    assert left.missing(["cpu", "pids", "hugetlb"]) == frozenset()


def test_check_names_limit_controller_and_kernel_option() -> None:
    with pytest.raises(ControllerMissing) as caught:
        Limits(memory_max=1, memory_high=1).check(HYBRID.controllers, HYBRID)
    assert caught.value.controller == "memory"
    assert "memory.high, memory.max cannot be set" in str(caught.value)
    assert "cgroup_no_v1=memory" in str(caught.value)


def test_check_uses_the_v1_name_where_it_differs() -> None:
    with pytest.raises(ControllerMissing, match="cgroup_no_v1=blkio"):
        Limits(io_max=(IoMax(8, 0, rbps=1),)).check(HYBRID.controllers, HYBRID)


def test_check_passes_what_is_there() -> None:
    Limits(unified={"hugetlb.2MB.max": "0"}).check(HYBRID.controllers, HYBRID)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(cpu_quota_us=20_000), "20000"),
        (Limits(cpu_quota_us=-1), "max"),
        (Limits(cpu_period_us=50_000), "max 50000"),
        (Limits(cpu_quota_us=-1, cpu_period_us=50_000), "max 50000"),
    ],
)
def test_cpu_max(limits: Limits, text: str) -> None:
    assert dict(limits.files()) == {"cpu.max": text}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(memory_max=-2), 'memory_max "-2" is negative'),
        (Limits(pids_max=-7), 'pids_max "-7" is negative'),
        (Limits(cpu_weight=0), "out of range"),
        (Limits(cpu_weight=10_001), "out of range"),
        (Limits(cpu_quota_us=999), "too small"),
        (Limits(cpu_period_us=999), "out of range"),
        (Limits(cpu_period_us=1_000_001), "out of range"),
        (Limits(cpu_idle=2), "cpu idle"),
        (Limits(cpu_quota_us=1000, cpu_burst_us=1001), "more than the quota"),
        (Limits(io_weight=9), "io weight"),
        (Limits(io_device_weights=(IoWeight(8, 0, 1001),)), "io weight of 8:0"),
        (Limits(unified={"../memory.max": "1"}), "is not a cgroup file"),
        (Limits(unified={"memory": "1"}), "is not a cgroup file"),
        (Limits(unified={"cgroup.procs": "1"}), "rawpod's own"),
        (Limits(unified={"cgroup.subtree_control": "+cpu"}), "rawpod's own"),
        (Limits(unified={"cgroup.kill": "1"}), "rawpod's own"),
    ],
)
def test_a_bad_value_is_refused_before_anything_is_written(limits: Limits, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        limits.apply(Cgroup(str(tmp_path)))


def test_the_weight_of_an_idle_group_is_not_written() -> None:
    # The kernel refuses it with EINVAL (sched_group_set_shares).
    assert dict(Limits(cpu_idle=1, cpu_weight=200).files()) == {"cpu.idle": "1"}


def test_an_io_weight_is_written_in_the_form_the_kernel_has(tmp_path: Path) -> None:
    limits = Limits(io_weight=500, io_device_weights=(IoWeight(8, 16, 1000),))
    (tmp_path / "io.weight").touch()
    assert _written(limits, tmp_path) == [("io.weight", "default 4950"), ("io.weight", "8:16 10000")]
    (tmp_path / "io.bfq.weight").touch()
    assert _written(limits, tmp_path) == [("io.bfq.weight", "500"), ("io.bfq.weight", "8:16 1000")]


def test_an_io_weight_without_a_scheduler_for_it_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "io.max").touch()
    with pytest.raises(NotSupported, match="bfq"):
        Limits(io_weight=500).apply(Cgroup(str(tmp_path)))


def test_no_swap_where_there_is_none_is_no_error_and_some_swap_is(tmp_path: Path) -> None:
    (tmp_path / "memory.max").touch()
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    for swap in (0, -1):
        assert _written(Limits(memory_max=4096, swap_max=swap), tmp_path) == [("memory.max", "4096")]
    with pytest.raises(NotSupported, match=r"memory\.swap\.max"):
        Limits(swap_max=4096).apply(Cgroup(str(tmp_path)))


def test_huge_page_reservations_are_limited_where_the_kernel_can(tmp_path: Path) -> None:
    (tmp_path / "hugetlb.2MB.max").touch()
    assert _written(Limits(hugetlb={"2MB": 0}), tmp_path) == [("hugetlb.2MB.max", "0")]
    (tmp_path / "hugetlb.2MB.rsvd.max").touch()
    assert _written(Limits(hugetlb={"2MB": 0}), tmp_path)[1:] == [("hugetlb.2MB.rsvd.max", "0")]


def test_a_page_size_that_the_kernel_has_not_is_no_missing_controller(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    with pytest.raises(NotSupported, match=r"hugetlb\.3MB\.max.*no such file"):
        Limits(hugetlb={"3MB": 0}).apply(Cgroup(str(tmp_path)))


def _written(limits: Limits, directory: Path) -> list[tuple[str, str]]:
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    try:
        limits.apply(Cgroup(str(directory)))
    finally:
        unsubscribe()
    return [(Path(str(event.arguments["path"])).name, str(event.arguments["value"])) for event in seen]


@pytest.mark.parametrize(("bfq", "weight"), [(0, 1), (10, 1), (100, 910), (500, 4950), (1000, 10000)])
def test_weights_of_bfq_become_io_weights(bfq: int, weight: int) -> None:
    assert io_weight_from_bfq(bfq) == weight


def test_unified_text_of_several_lines_is_a_write_a_line() -> None:
    limits = Limits(unified={"io.max": "8:0 rbps=1\n8:16 rbps=2\n"})
    assert list(limits.files()) == [("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2")]


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 100), (1, 1), (2, 1), (512, 59), (1024, 100), (262144, 10000), (10**9, 10000)]
)
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert weight_from_shares(shares) == weight


@given(st.integers(1, 2**63))
def test_weights_are_in_range_and_never_fall_as_shares_rise(shares: int) -> None:
    weight = weight_from_shares(shares)
    assert 1 <= weight <= 10000
    assert weight <= weight_from_shares(shares + 1)


def test_swap_alone_is_what_is_left_of_both_together() -> None:
    assert swap_alone(300, 100) == 200
    assert swap_alone(100, 100) == 0
    assert swap_alone(-1, 100) == -1
    assert swap_alone(None, 100) is None
    assert swap_alone(0, 100) is None
    assert swap_alone(None, -1) == -1  # v1 could not lift one without the other
    assert swap_alone(300, -1) == 300
    with pytest.raises(BadInput, match="below the memory limit"):
        swap_alone(99, 100)
    with pytest.raises(BadInput, match="without a memory limit"):
        swap_alone(99, None)


@pytest.mark.parametrize(
    ("action", "name", "value", "number", "kind", "words"),
    [
        ("write", "cgroup.subtree_control", "+cpu", errno.EBUSY, Conflict, "evacuate"),
        ("write", "cgroup.subtree_control", "-cpu", errno.EBUSY, Conflict, "hands the controller on"),
        ("write", "cgroup.subtree_control", "+cpu", errno.ENOENT, ControllerMissing, "parent"),
        ("write", "cgroup.subtree_control", "+cpu", errno.EOPNOTSUPP, NotSupported, "threaded"),
        ("write", "cgroup.procs", "7", errno.EBUSY, Conflict, "into a child"),
        ("write", "cgroup.procs", "7", errno.ESRCH, NotFound, "process is gone"),
        ("write", "cgroup.procs", "7", errno.EOPNOTSUPP, NotSupported, "threaded"),
        ("write", "io.max", "9:9 rbps=1", errno.ENODEV, BadInput, "whole disk"),
        ("write", "cpuset.cpus", "x", errno.EINVAL, BadInput, "refuses the value"),
        ("write", "memory.max", "1", errno.EACCES, HostError, "root"),
        ("read", "cgroup.events", None, errno.ENODEV, NotFound, "removed"),
        ("create", "x", None, errno.EAGAIN, HostError, "max.descendants"),
        ("remove", "x", None, errno.EBUSY, Conflict, "kill them"),
        ("write", "memory.max", "1", errno.EIO, SystemCallError, "input/output error"),
    ],
)
def test_every_refusal_of_the_kernel_has_a_type_and_a_remedy(
    action: str, name: str, value: str | None, number: int, kind: type[Exception], words: str, tmp_path: Path
) -> None:
    error = refusal(action, str(tmp_path / name), value, OSError(number, "x"))
    assert type(error) is kind
    assert words in str(error)
    assert name in str(error)
