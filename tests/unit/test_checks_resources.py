"""linux.resources: what is malformed, what cgroup v2 cannot do, and what becomes of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cgroups.cgroup import Cgroup
from cgroups.controllers import IoMax, IoWeight, Limits, RdmaMax
from cgroups.device_rules import OCI, Rule
from kernel.errors import BadInput, NotSupported
from runtime import spec
from runtime.checks import resources as resources_check
from runtime.limits import add_default_devices, device_rules, limits_of, update_cgroup

MIB = 1 << 20


def resources(text: dict[str, Any]) -> spec.Resources:
    """`linux.resources` of a description that has nothing else."""
    linux = {"namespaces": [{"type": "mount"}], "resources": text}
    config = spec.load(json.dumps({"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "linux": linux}).encode())
    assert config.linux is not None
    assert config.linux.resources is not None
    return config.linux.resources


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"memory": {"kernel": 4096}}, "memory.kernel"),
        ({"memory": {"kernelTCP": 4096}}, "memory.kernelTCP"),
        ({"memory": {"swappiness": 0}}, "memory.swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller"),
        ({"memory": {"useHierarchy": False}}, "memory.useHierarchy"),
        ({"cpu": {"realtimeRuntime": 950000}}, "cpu.realtimeRuntime"),
        ({"cpu": {"realtimePeriod": 1000000}}, "cpu.realtimePeriod"),
        ({"blockIO": {"leafWeight": 500}}, "blockIO.leafWeight"),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 500}]}},
            "blockIO.weightDevice[0].leafWeight",
        ),
        ({"network": {"classID": 1048577}}, "network.classID"),
        ({"network": {"priorities": [{"name": "eth0", "priority": 500}]}}, "network.priorities"),
    ],
)
def test_what_cgroup_v2_cannot_do_is_refused_by_its_path(asked: dict[str, Any], named: str) -> None:
    assert resources_check.unsupported(resources(asked)) == [f"linux.resources.{named}"]


def test_what_cgroup_v2_does_anyway_is_taken() -> None:
    asked = {
        "memory": {"kernel": -1, "kernelTCP": -1, "disableOOMKiller": False, "useHierarchy": True},
        "cpu": {"realtimeRuntime": 0, "realtimePeriod": 0},
        "blockIO": {"leafWeight": 0},
        "network": {},
    }
    assert resources_check.unsupported(resources(asked)) == []
    assert limits_of(resources(asked)) == Limits()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"memory": {"limit": -2}}, "memory.limit: -2"),
        ({"memory": {"limit": 2**63}}, "memory.limit: 9223372036854775808"),
        ({"memory": {"swappiness": 101}}, "memory.swappiness: 101"),
        ({"memory": {"swap": 4096}}, "memory.swap: 4096 without a memory.limit"),
        ({"memory": {"limit": 8192, "swap": 4096}}, "memory.swap: 4096 is below memory.limit"),
        ({"cpu": {"quota": 999}}, "cpu.quota: 999"),
        ({"cpu": {"quota": -2}}, "cpu.quota: -2"),
        ({"cpu": {"period": 999}}, "cpu.period: 999"),
        ({"cpu": {"shares": -1}}, "cpu.shares: -1"),
        ({"cpu": {"idle": 2}}, "cpu.idle: 2"),
        ({"cpu": {"quota": 1000, "burst": 1001}}, "cpu.burst: 1001 is more than cpu.quota"),
        ({"cpu": {"cpus": "0-"}}, "cpu.cpus: '0-' is not a list"),
        ({"cpu": {"cpus": "3-1"}}, "cpu.cpus: '3-1'"),
        ({"cpu": {"mems": "a"}}, "cpu.mems: 'a'"),
        ({"pids": {"limit": -2}}, "pids.limit: -2"),
        ({"blockIO": {"weight": 9}}, "blockIO.weight: 9"),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}}, "weightDevice[0]: neither weight nor leafWeight"),
        ({"blockIO": {"throttleReadIOPSDevice": [{"major": -1, "minor": 0, "rate": 1}]}}, "ReadIOPSDevice[0].major"),
        ({"blockIO": {"throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": -1}]}}, "WriteBpsDevice[0].rate: -1"),
        ({"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}, "hugepageLimits[0].pageSize: '2M'"),
        ({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}, "hugepageLimits[0].pageSize"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": -1}]}, "hugepageLimits[0].limit: -1"),
        ({"rdma": {"mlx5_0": {}}}, "rdma['mlx5_0']: neither hcaHandles nor hcaObjects"),
        ({"rdma": {"a b": {"hcaHandles": 1}}}, "rdma: 'a b' is not the name of a device"),
        ({"rdma": {"a": {"hcaHandles": 2**32}}}, "rdma['a'].hcaHandles: 4294967296"),
        ({"unified": {"../cgroup.procs": "1"}}, "unified: '../cgroup.procs'"),
        ({"unified": {"cgroup.procs": "1"}}, "unified: 'cgroup.procs'"),
        ({"unified": {"memory": "1"}}, "unified: 'memory'"),
        ({"devices": [{"allow": True, "type": "p", "access": "r"}]}, "devices[0].type: 'p'"),
        ({"devices": [{"allow": True, "access": ""}]}, "devices[0].access: ''"),
        ({"devices": [{"allow": True, "access": "rx"}]}, "devices[0].access: 'rx'"),
        ({"devices": [{"allow": True, "access": "r", "major": 2**32}]}, "devices[0].major: 4294967296"),
    ],
)
def test_what_is_malformed_is_named_by_its_path(asked: dict[str, Any], said: str) -> None:
    (fault,) = resources_check.faults(resources(asked))
    assert fault.startswith("linux.resources.")
    assert said in fault


def test_the_specifications_own_examples_are_well_formed() -> None:
    asked = {
        "memory": {"limit": 536870912, "reservation": 536870912, "swap": 536870912},
        "cpu": {"shares": 1024, "quota": 1000000, "burst": 1000000, "period": 500000, "cpus": "2-3", "mems": "0-7"},
        "blockIO": {"weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 500}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 209715200}, {"pageSize": "64KB", "limit": 1000000}],
        "pids": {"limit": 32771},
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "rxe3": {"hcaObjects": 10000}},
        "unified": {"io.max": "259:0 rbps=2097152 wiops=120\n253:0 rbps=2097152", "hugetlb.1GB.max": "1073741824"},
        "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "access": "rw"}],
    }
    assert list(resources_check.faults(resources(asked))) == []


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        ({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}, Limits(memory_max=64 * MIB, swap_max=0)),
        ({"memory": {"limit": 64 * MIB, "swap": -1}}, Limits(memory_max=64 * MIB, swap_max=-1)),
        ({"memory": {"limit": -1}}, Limits(memory_max=-1, swap_max=-1)),
        ({"memory": {"limit": 0, "reservation": 0, "swap": 0}}, Limits()),
        ({"memory": {"reservation": 4096, "checkBeforeUpdate": True}}, Limits(memory_low=4096, memory_check=True)),
        ({"cpu": {"shares": 0, "quota": 0, "period": 0}}, Limits()),
        ({"cpu": {"shares": 1024, "quota": -1, "idle": 1}}, Limits(cpu_weight=100, cpu_quota_us=-1, cpu_idle=1)),
        ({"cpu": {"burst": 0, "cpus": "0-1", "mems": "0"}}, Limits(cpu_burst_us=0, cpuset_cpus="0-1", cpuset_mems="0")),
        ({"pids": {"limit": 0}}, Limits()),
        ({"pids": {"limit": -1}}, Limits(pids_max=-1)),
        (
            {"blockIO": {"weight": 0, "weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}},
            Limits(io_device_weights=(IoWeight(8, 0, 500),)),
        ),
        (
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
                }
            },
            Limits(io_max=(IoMax(8, 0, rbps=600, wiops=-1),)),
        ),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, Limits(hugetlb={"2MB": 0})),
        ({"rdma": {"mlx5_1": {"hcaObjects": 7}}}, Limits(rdma=(RdmaMax("mlx5_1", None, 7),))),
    ],
)
def test_the_rest_becomes_limits(asked: dict[str, Any], limits: Limits) -> None:
    assert limits_of(resources(asked)) == limits


def test_an_update_counts_swap_from_the_memory_limit_that_holds(tmp_path: Path) -> None:
    for name in ("memory.max", "memory.swap.max"):
        (tmp_path / name).write_text(f"{64 * MIB}\n")
    update_cgroup(Cgroup(str(tmp_path)), resources({"memory": {"swap": 80 * MIB}}))
    assert (tmp_path / "memory.swap.max").read_text().strip() == str(16 * MIB)
    assert (tmp_path / "memory.max").read_text() == f"{64 * MIB}\n"


def test_an_update_refuses_what_a_description_may_not_have(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"memory\.swap: 1 is below memory\.limit"):
        (tmp_path / "memory.max").write_text(f"{64 * MIB}\n")
        update_cgroup(Cgroup(str(tmp_path)), resources({"memory": {"swap": 1}}))
    with pytest.raises(NotSupported, match=r"memory\.swappiness"):
        update_cgroup(Cgroup(str(tmp_path)), resources({"memory": {"swappiness": 1}}))


def test_device_rules_keep_their_order_and_minus_one_is_every_number() -> None:
    asked = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": -1, "access": "rw"},
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"},
    ]
    assert device_rules(resources({"devices": asked})) == (
        Rule(False),
        Rule(True, "c", 10, None, "rw"),
        Rule(True, "b", 8, 0, "r"),
    )


def test_the_default_devices_come_last_and_also_where_there_is_no_rule() -> None:
    for given in (spec.Config("1.2.0"), spec.Config("1.2.0", linux=spec.Linux(resources=spec.Resources()))):
        add_default_devices(given)
        assert given.linux is not None
        assert given.linux.resources is not None
        assert device_rules(given.linux.resources) == OCI
    deny = spec.Resources(devices=[spec.DeviceRule(False, "c", 1, 3, "rwm")])
    config = spec.Config("1.2.0", linux=spec.Linux(resources=deny))
    add_default_devices(config)
    assert device_rules(deny) == (Rule(False, "c", 1, 3), *OCI)
