"""config-linux.md: control groups: where they are, and the limits in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.oci.bundle import eventually

pytestmark = pytest.mark.needs_cgroups
ROOT = Path("/sys/fs/cgroup")


def cgroup(box):
    """The cgroup of the container's process."""
    for line in Path(f"/proc/{box.pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return ROOT / line[4:]
    raise AssertionError("no cgroup v2")


def limited(box, **resources):
    """A created container with these resources; its cgroup."""
    box.linux["resources"] = resources
    box.created()
    return cgroup(box)


def value(directory, name):
    return (directory / name).read_text().strip()


# where


def test_an_absolute_path_is_relative_to_the_mount(box):
    """Cgroups Path: "In the case of an absolute path, the runtime MUST take the path to be relative to the cgroups mount point"."""
    box.created()
    assert cgroup(box) == ROOT / box.linux["cgroupsPath"].lstrip("/")


def test_the_same_path_is_the_same_place(box):
    """Cgroups Path: "the runtime MUST consistently attach to the same place ... given the same value"."""
    places = []
    for _ in range(2):
        box.created()
        places.append(cgroup(box))
        box.delete("--force").ok()
    assert places[0] == places[1]


def test_a_relative_path_is_the_same_place_each_time(box, machine):
    """Cgroups Path: a relative path: "MAY interpret the path relative to a runtime-determined location", "consistently"."""
    box.linux["cgroupsPath"] = f"{machine}/{box.id}"
    places = []
    for _ in range(2):
        box.created()
        places.append(cgroup(box))
        box.delete("--force").ok()
    assert places[0] == places[1]
    assert os.fspath(places[0]).endswith(box.linux["cgroupsPath"])


def test_without_a_path_the_container_has_a_cgroup_of_its_own(box):
    """Cgroups Path: "If the value is not specified, the runtime MAY define the default cgroups path"."""
    del box.linux["cgroupsPath"]
    box.created()
    place = cgroup(box)
    assert box.id in place.name
    assert value(place, "cgroup.procs") == str(box.pid)


def test_missing_cgroups_are_created(box, machine):
    """Cgroups Path: "The cgroups will be created if they don't exist"."""
    box.linux["cgroupsPath"] = f"/{machine}/{box.id}/deep/er"
    box.created()
    assert cgroup(box) == ROOT / machine / box.id / "deep/er"
    box.delete("--force").ok()
    assert not (ROOT / machine / box.id / "deep/er").exists()
    for place in (ROOT / machine / box.id / "deep", ROOT / machine / box.id):
        if place.exists():
            place.rmdir()


def test_a_path_that_leads_out_of_the_hierarchy_is_not_followed(box, machine):
    """Cgroups Path: "Runtimes MAY consider certain values to be invalid, and MUST generate an error if this is the case"."""
    box.linux["cgroupsPath"] = f"/{machine}/../../../../tmp/{box.id}"
    result = box.create()
    assert not Path("/tmp", box.id).exists()
    if result.code == 0:
        assert cgroup(box).is_relative_to(ROOT)


def test_a_cgroup_with_processes_of_others_is_refused(box, bundles):
    """Control groups: "for create, a non-empty cgroup ... MUST generate an error if such a check fails"."""
    other = bundles().running()
    box.linux["cgroupsPath"] = other.linux["cgroupsPath"]
    box.refused()
    assert other.status == "running"


def test_the_cgroup_namespace_shows_the_containers_cgroup_as_root(box):
    """Namespaces: `cgroup` "the container will have an isolated view of the cgroup hierarchy"."""
    assert "0::/\n" in box.shell("cat /proc/self/cgroup")


def test_every_process_of_the_container_is_in_its_cgroup(box, fifo):
    """Control groups: "used to restrict resource usage for a container"."""
    box.running("sh", "-c", "sleep 1000 & echo up > /fifo; exec sleep 1001")
    assert fifo.line() == "up"
    assert len(value(cgroup(box), "cgroup.procs").split()) == 2


# limits that can be set without a controller


def test_unified_writes_what_it_names(box):
    """Unified: "Each key in the map refers to a file in the cgroup unified hierarchy"."""
    assert value(limited(box, unified={"cgroup.max.descendants": "7"}), "cgroup.max.descendants") == "7"


@pytest.mark.parametrize("name", ["nosuch.max", "cgroup.nosuch", "../cgroup.max.depth", "memory"])
def test_unified_of_a_controller_that_is_not_there_is_an_error(box, name):
    """Unified: "MUST generate an error when the configuration refers to a cgroup controller that is not present"."""
    box.linux["resources"] = {"unified": {name: "1"}}
    box.refused()


def test_a_value_the_kernel_refuses_is_an_error(box):
    """Unified: runtime.md, Create: "If the runtime cannot apply a property ..., it MUST generate an error"."""
    box.linux["resources"] = {"unified": {"cgroup.max.depth": "many"}}
    box.refused()


@pytest.mark.parametrize("access", ["rw", "ro"])
def test_the_cgroup_is_delegated_if_it_is_mounted_for_writing(box, access):
    """Cgroup ownership: "SHOULD change the cgroup ownership if and only if the cgroup filesystem is to be mounted read/write"."""
    box.namespace("user")
    box.linux["uidMappings"] = box.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    for path in (box.directory, *box.directory.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    os.chown(box.rootfs, 100000, 100000)
    for path in box.rootfs.iterdir():
        os.chown(path, 100000, 100000)
    box.mount("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", access))
    box.created()
    owners = {name: (cgroup(box) / name).stat().st_uid for name in (".", "cgroup.procs", "cgroup.max.depth")}
    theirs = 100000 if access == "rw" else 0
    assert owners == {".": theirs, "cgroup.procs": theirs, "cgroup.max.depth": 0}


# pause and resume


def test_a_paused_container_is_frozen_and_goes_on_when_resumed(box, fifo):
    """runc(8), pause, resume: suspend and resume "all processes inside the container"."""
    box.running("sh", "-c", "while :; do echo tick > /fifo; read line < /none; done 2>/dev/null")
    assert fifo.line() == "tick"
    box.runtime("pause", box.id).ok()
    assert box.status == "paused"
    assert eventually(lambda: "frozen 1" in value(cgroup(box), "cgroup.events"))
    box.runtime("resume", box.id).ok()
    assert box.status == "running"
    assert "frozen 0" in value(cgroup(box), "cgroup.events")


def test_a_paused_container_can_be_killed(box):
    """Kill: a paused container is a running one whose processes wait; SIGKILL ends them."""
    box.running()
    box.runtime("pause", box.id).ok()
    box.kill("KILL").ok()
    assert box.wait() == 137
    assert box.status == "stopped"


def test_a_paused_container_cannot_be_deleted(box):
    """Delete: "a container that is not `stopped` MUST have no effect on the container and MUST generate an error"."""
    box.running()
    box.runtime("pause", box.id).ok()
    box.delete().failed()
    assert box.status == "paused"


def test_exec_in_a_paused_container_is_an_error(box):
    """runc(8), exec: a process would not run; --ignore-paused is for those who know."""
    box.running()
    box.runtime("pause", box.id).ok()
    box.exec("true").failed()


def test_a_paused_container_is_killed_by_a_forced_delete(box):
    """runc(8), delete --force: a paused container is no exception."""
    box.running()
    box.runtime("pause", box.id).ok()
    box.delete("--force").ok()
    box.query().failed()


def test_a_stopped_container_cannot_be_paused(box):
    """runc(8), pause: a container that does not run is an error."""
    box.finished()
    box.runtime("pause", box.id).failed()


# limits


@pytest.mark.needs_controllers("memory")
@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({"limit": 64 << 20}, {"memory.max": str(64 << 20)}),
        ({"limit": -1}, {"memory.max": "max"}),
        ({"reservation": 32 << 20}, {"memory.low": str(32 << 20)}),
        ({"limit": 64 << 20, "swap": 96 << 20}, {"memory.max": str(64 << 20), "memory.swap.max": str(32 << 20)}),
        ({"limit": 64 << 20, "swap": 64 << 20}, {"memory.swap.max": "0"}),
        ({"limit": 64 << 20, "swap": -1}, {"memory.swap.max": "max"}),
    ],
    ids=["limit", "unlimited", "reservation", "swap", "no swap", "unlimited swap"],
)
def test_memory_is_limited(box, memory, expected):
    """Memory: "Values for memory specify the limit in bytes, or `-1` for unlimited memory"."""
    place = limited(box, memory=memory)
    assert {name: value(place, name) for name in expected} == expected


@pytest.mark.needs_controllers("memory")
def test_more_memory_than_the_limit_kills(box):
    """Memory: "tasks that attempt to consume more memory than they are allowed are immediately killed by the OOM killer"."""
    box.linux["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    box.created("sh", "-c", "exec tail /dev/zero")
    box.start().ok()
    assert box.wait() == 137


@pytest.mark.needs_controllers("memory")
def test_swap_below_the_limit_is_an_error(box):
    """Memory: `swap` "sets limit of memory+Swap usage", which cannot be less than that of memory."""
    box.linux["resources"] = {"memory": {"limit": 64 << 20, "swap": 32 << 20}}
    box.refused()


@pytest.mark.needs_controllers("cpu")
@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ({"quota": 50000, "period": 100000}, {"cpu.max": "50000 100000"}),
        ({"quota": 20000}, {"cpu.max": "20000 100000"}),
        ({"period": 50000}, {"cpu.max": "max 50000"}),
        ({"quota": -1, "period": 50000}, {"cpu.max": "max 50000"}),
        ({"idle": 1}, {"cpu.idle": "1"}),
        ({"quota": 50000, "period": 100000, "burst": 10000}, {"cpu.max.burst": "10000"}),
    ],
    ids=["quota and period", "quota", "period", "unlimited", "idle", "burst"],
)
def test_cpu_is_limited(box, cpu, expected):
    """CPU: `quota`, `period`, `burst` in microseconds, `idle`."""
    place = limited(box, cpu=cpu)
    assert {name: value(place, name) for name in expected} == expected


@pytest.mark.needs_controllers("cpu")
@pytest.mark.parametrize(("less", "more"), [(2, 1024), (512, 2048), (1024, 262144)])
def test_shares_become_a_weight(box, bundles, less, more):
    """CPU: `shares` "specifies a relative share of CPU time": more of them is more weight."""
    weights = []
    for each, shares in ((box, less), (bundles(), more)):
        weights.append(int(value(limited(each, cpu={"shares": shares}), "cpu.weight")))
    assert 1 <= weights[0] < weights[1] <= 10000


@pytest.mark.needs_controllers("cpuset")
def test_the_cpus_are_the_configured_ones(box):
    """CPU: `cpus` "list of CPUs the container will run in", `mems` "list of Memory Nodes"."""
    place = limited(box, cpu={"cpus": "0", "mems": "0"})
    assert (value(place, "cpuset.cpus"), value(place, "cpuset.mems")) == ("0", "0")


@pytest.mark.needs_controllers("pids")
@pytest.mark.parametrize(("limit", "expected"), [(20, "20"), (-1, "max")])
def test_processes_are_limited(box, limit, expected):
    """PIDs: `limit` "specifies the maximum number of tasks in the cgroup"."""
    assert value(limited(box, pids={"limit": limit}), "pids.max") == expected


@pytest.mark.needs_controllers("pids")
def test_more_processes_than_the_limit_are_refused(box):
    """PIDs: `limit` "specifies the maximum number of tasks in the cgroup"."""
    box.linux["resources"] = {"pids": {"limit": 3}}
    assert "fork" in box.run("sh", "-c", "for turn in 1 2 3 4 5; do sleep 1000 & done").err


@pytest.mark.needs_controllers("io")
def test_the_weight_of_block_io_is_set(box):
    """Block IO: `weight` "specifies per-cgroup weight", 10 to 1000 there and 1 to 10000 here."""
    place = limited(box, blockIO={"weight": 500})
    found = next((place / name for name in ("io.bfq.weight", "io.weight") if (place / name).exists()), None)
    assert found is not None
    assert found.read_text().split()[-1] not in ("100", "0")


@pytest.mark.needs_controllers("io")
def test_block_devices_are_throttled(box):
    """Block IO: `throttleReadBpsDevice`, `throttleWriteBpsDevice`, `throttleReadIOPSDevice`, `throttleWriteIOPSDevice`."""
    number = os.stat("/").st_dev
    device = {"major": os.major(number), "minor": os.minor(number) & ~15}
    names = ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice")
    rates = dict(zip(names, (1 << 20, 2 << 20, 300, 400), strict=True))
    place = limited(box, blockIO={name: [{**device, "rate": rate}] for name, rate in rates.items()})
    assert f"{device['major']}:{device['minor']} rbps=1048576 wbps=2097152 riops=300 wiops=400" in value(
        place, "io.max"
    )


@pytest.mark.needs_controllers("memory")
def test_unified_enables_the_controller_it_needs(box):
    """Unified: "The OCI runtime MUST ensure that the needed cgroup controllers are enabled for the cgroup"."""
    place = limited(box, unified={"memory.high": str(64 << 20), "memory.oom.group": "1"})
    assert (value(place, "memory.high"), value(place, "memory.oom.group")) == (str(64 << 20), "1")


@pytest.mark.needs_controllers("memory", "pids", "cpu")
def test_update_changes_limits(box):
    """runc(8), update: changes "the resource constraints" of a running container, from a file or standard input."""
    box.running()
    place = cgroup(box)
    new = {"memory": {"limit": 96 << 20}, "pids": {"limit": 33}, "cpu": {"quota": 30000, "period": 100000}}
    box.runtime("update", "--resources", "-", box.id, stdin=json.dumps(new)).ok()
    found = {name: value(place, name) for name in ("memory.max", "pids.max", "cpu.max")}
    assert found == {"memory.max": str(96 << 20), "pids.max": "33", "cpu.max": "30000 100000"}


@pytest.mark.needs_controllers("memory", "pids", "cpu")
def test_update_takes_options(box):
    """runc(8), update: --memory, --pids-limit, --cpu-quota, --cpu-period, as podman and containerd pass them."""
    box.running()
    place = cgroup(box)
    options = ("--memory", 80 << 20, "--pids-limit", 44, "--cpu-quota", 20000, "--cpu-period", 50000)
    box.runtime("update", *options, box.id).ok()
    found = {name: value(place, name) for name in ("memory.max", "pids.max", "cpu.max")}
    assert found == {"memory.max": str(80 << 20), "pids.max": "44", "cpu.max": "20000 50000"}


IMPOSSIBLE = {
    "kernel memory": {"memory": {"kernel": 64 << 20}},
    "kernel TCP memory": {"memory": {"kernelTCP": 64 << 20}},
    "swappiness": {"memory": {"swappiness": 10}},
    "no OOM killer": {"memory": {"disableOOMKiller": True}},
    "realtime": {"cpu": {"realtimeRuntime": 1000, "realtimePeriod": 10000}},
    "class of packets": {"network": {"classID": 1048577}},
    "leaf weight": {"blockIO": {"leafWeight": 100}},
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cgroup_v2_has_no_form_of_is_an_error(box, what):
    """Unified: "If the conversion is not possible the runtime MUST generate an error"."""
    box.linux["resources"] = IMPOSSIBLE[what]
    box.refused()


def test_what_the_host_does_not_give_is_no_silent_success(box, controllers):
    """config.md, Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.linux["resources"] = {"hugepageLimits": [{"pageSize": "3MB", "limit": 1 << 20}]}
    box.refused()
