"""Scopes: their names and places from linux.cgroupsPath, and limits as properties of a unit."""

from __future__ import annotations

import pytest

from cgroups.controllers import Limits
from cgroups.hierarchy import Hierarchy
from cgroups.systemd import Scope, scope_of, scope_properties, slice_path
from kernel.errors import BadInput

HIERARCHY = Hierarchy(
    mount="/sys/fs/cgroup",
    root="/sys/fs/cgroup/user.slice/session-1.scope",
    controllers=frozenset({"cpu"}),
    v1_controllers={},
    own="/sys/fs/cgroup",
    hybrid=False,
)
INFINITY = 2**64 - 1


@pytest.mark.parametrize(
    ("path", "slice", "name", "directory"),
    [
        ("machine.slice:libpod:1f", "machine.slice", "libpod-1f.scope", "machine.slice/libpod-1f.scope"),
        ("a-b-c.slice:cri:x", "a-b-c.slice", "cri-x.scope", "a.slice/a-b.slice/a-b-c.slice/cri-x.scope"),
        ("-.slice:p:x", "-.slice", "p-x.scope", "p-x.scope"),
        (":p:x", "system.slice", "p-x.scope", "system.slice/p-x.scope"),
        ("s.slice::x", "s.slice", "x.scope", "s.slice/x.scope"),
        ("", "system.slice", "rawpod-id.scope", "system.slice/rawpod-id.scope"),
    ],
)
def test_a_cgroups_path_names_a_scope_and_its_place(path: str, slice: str, name: str, directory: str) -> None:
    scope = scope_of(path, "id")
    assert scope == Scope(slice, name)
    assert scope.cgroup(HIERARCHY).path == f"/sys/fs/cgroup/{directory}"


@pytest.mark.parametrize(
    "path",
    [
        "/a/b",
        "a.slice:b",
        "a.slice:b:",
        "a.slice:b:c:d",
        "a:b:c",
        "a.slice:b:c/d",
        "a.slice:b:c.slice",
        "a--b.slice:x:y",
    ],
)
def test_a_cgroups_path_that_names_none_is_refused(path: str) -> None:
    with pytest.raises(BadInput):
        scope_of(path, "id")


@pytest.mark.parametrize("slice", [".slice", "-a.slice", "a-.slice", "a/b.slice", "a", "../a.slice"])
def test_what_is_no_slice_has_no_path(slice: str) -> None:
    with pytest.raises(BadInput, match="is not a slice"):
        slice_path(slice)


def test_limits_become_properties() -> None:
    limits = Limits(
        memory_max=64 << 20,
        memory_low=16 << 20,
        swap_max=0,
        cpu_quota_us=33_333,
        cpu_period_us=50_000,
        cpu_weight=200,
        cpuset_cpus="0-2,9",
        pids_max=-1,
        unified={"memory.high": "max", "memory.min": "1M"},
    )
    assert dict(scope_properties(limits)) == {
        "MemoryLow": ("t", 16 << 20),
        "MemoryHigh": ("t", INFINITY),
        "MemoryMax": ("t", 64 << 20),
        "MemorySwapMax": ("t", 0),
        "TasksMax": ("t", INFINITY),
        "CPUWeight": ("t", 200),
        "CPUQuotaPeriodUSec": ("t", 50_000),
        "CPUQuotaPerSecUSec": ("t", 670_000),  # 66.7 percent, rounded up
        "AllowedCPUs": ("ay", b"\x07\x02"),
    }
    assert dict(scope_properties(Limits(cpu_quota_us=-1)))["CPUQuotaPerSecUSec"] == ("t", INFINITY)
    assert dict(scope_properties(Limits(cpu_idle=1, cpu_weight=5))) == {"CPUWeight": ("t", 0)}
    assert scope_properties(Limits()) == []


def test_what_only_the_kernel_reads_is_left_to_the_file() -> None:
    unified = {"memory.max": "64M", "cpu.max": "50%", "cpuset.cpus": "0-7:1/2", "io.max": "8:0 rbps=1"}
    assert scope_properties(Limits(unified=unified)) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("CollectMode", "'inactive-or-failed'", ("CollectMode", ("s", "inactive-or-failed"))),
        ("TimeoutStopUSec", "uint64 5000000", ("TimeoutStopUSec", ("t", 5_000_000))),
        ("TimeoutStopSec", "uint64 5", ("TimeoutStopUSec", ("t", 5_000_000))),
        ("RuntimeMaxSec", "1.5", ("RuntimeMaxUSec", ("t", 1_500_000))),
        ("DefaultDependencies", "true", ("DefaultDependencies", ("b", True))),
        ("After", "['crio.service', 'x.target']", ("After", ("as", ["crio.service", "x.target"]))),
        ("Nice", "int32 -5", ("Nice", ("i", -5))),
    ],
)
def test_annotations_set_properties(name: str, text: str, found: object) -> None:
    annotations = {f"org.systemd.property.{name}": text, "org.other": "x"}
    assert scope_of("", "id", annotations).properties == (found,)


@pytest.mark.parametrize(
    ("name", "text"), [("A", "1"), ("A-b", "1"), ("Nice", "uint64"), ("Nice", "__import__('os')"), ("StopSec", "'x'")]
)
def test_annotations_that_are_none_are_refused(name: str, text: str) -> None:
    with pytest.raises(BadInput, match="annotation"):
        scope_of("", "id", {f"org.systemd.property.{name}": text})
