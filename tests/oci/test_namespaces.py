"""config-linux.md: namespaces, the mappings of user namespaces, the offsets of time namespaces."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel import process
from tests.oci.bundle import reap

FILES = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "cgroup": "cgroup"}
SHAREABLE = ("network", "ipc", "uts")
FLAGS = {"network": process.CLONE_NEWNET, "ipc": process.CLONE_NEWIPC, "uts": process.CLONE_NEWUTS}
MAPPINGS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def own(kind):
    """This process's namespace of a kind."""
    return os.readlink(f"/proc/self/ns/{FILES.get(kind, kind)}")


def inside(box, kind):
    """The container's namespace of a kind."""
    return os.readlink(f"/proc/{box.pid}/ns/{FILES.get(kind, kind)}")


@contextmanager
def foreign(kind: str) -> Iterator[str]:
    """The file of a new namespace that a process holds."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go[1])
            process.unshare(FLAGS[kind])
            os.write(ready[1], b".")
            os.read(go[0], 1)
        finally:
            os._exit(0)
    os.close(go[0])
    assert os.read(ready[0], 1) == b"."
    try:
        yield f"/proc/{pid}/ns/{FILES[kind]}"
    finally:
        for end in (go[1], *ready):
            os.close(end)
        reap(pid)


@pytest.fixture
def user_namespace(box):
    """The box in a user namespace of its own, whose root may read everything."""
    box.namespace("user")
    box.linux["uidMappings"] = box.linux["gidMappings"] = MAPPINGS
    for path in (box.directory, *box.directory.parents):
        if path.stat().st_uid == os.getuid() and path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    for path in (box.rootfs, *box.rootfs.rglob("*")):
        if not path.is_symlink() and path.name != "busybox":
            os.chown(path, 100000, 100000)
    return box


@pytest.mark.parametrize("kind", FILES)
def test_a_namespace_without_path_is_a_new_one(box, kind):
    """Namespaces: "If `path` is not specified, the runtime MUST create a new container namespace of type `type`"."""
    assert inside(box.created(), kind) != own(kind)


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "cgroup", "pid"])
def test_a_namespace_that_is_not_listed_is_the_runtimes(box, kind):
    """Namespaces: "If a namespace type is not specified ..., the container MUST inherit the runtime namespace"."""
    box.without(kind)
    assert inside(box.created(), kind) == own(kind)
    box.kill("KILL").ok()
    box.wait()


@pytest.mark.parametrize("kind", SHAREABLE)
def test_a_namespace_with_path_is_joined(box, kind):
    """Namespaces: "The runtime MUST place the container process in the namespace associated with that `path`"."""
    with foreign(kind) as path:
        box.namespace(kind, path)
        assert inside(box.created(), kind) == os.readlink(path) != own(kind)


def test_the_pid_namespace_of_another_container_is_joined(box, bundles):
    """Namespaces: "The runtime MUST place the container process in the namespace associated with that `path`"."""
    other = bundles().running()
    box.namespace("pid", f"/proc/{other.pid}/ns/pid")
    assert box.run("readlink", "/proc/self/ns/pid").ok().out.strip() == os.readlink(f"/proc/{other.pid}/ns/pid")
    other.kill("KILL").ok()
    other.wait()


def test_a_namespace_that_was_joined_is_kept_by_delete(box):
    """runtime.md, Delete: "resources associated with the container, but not created by this container, MUST NOT be deleted"."""
    with foreign("network") as path:
        before = os.readlink(path)
        box.namespace("network", path)
        box.finished()
        box.delete().ok()
        assert os.readlink(path) == before


@pytest.mark.parametrize(("kind", "other"), [("network", "uts"), ("ipc", "network"), ("uts", "ipc"), ("pid", "uts")])
def test_a_path_of_another_type_is_an_error(box, kind, other):
    """Namespaces: "MUST generate an error if `path` is not associated with a namespace of type `type`"."""
    with foreign(other) as path:
        box.namespace(kind, path)
        box.refused()


@pytest.mark.parametrize("kind", SHAREABLE)
def test_a_path_that_is_no_namespace_is_an_error(box, kind):
    """Namespaces: "MUST generate an error if `path` is not associated with a namespace of type `type`"."""
    (box.directory / "file").write_text("")
    box.namespace(kind, box.directory / "file")
    box.refused()


def test_a_path_that_is_missing_is_an_error(box):
    """Namespaces: "MUST generate an error if `path` is not associated with a namespace of type `type`"."""
    box.namespace("network", "/no/such/namespace")
    box.refused()


def test_a_relative_path_is_an_error(box):
    """Namespaces: `path`: "This value MUST be an absolute path in the runtime mount namespace"."""
    box.namespace("network", "proc/self/ns/net")
    assert box.create(cwd=Path("/")).failed().err


@pytest.mark.parametrize("kind", ["pid", "network", "uts"])
def test_a_type_that_is_listed_twice_is_an_error(box, kind):
    """Namespaces: "If a `namespaces` field contains duplicated namespaces with same `type`, the runtime MUST generate an error"."""
    box.linux["namespaces"].append({"type": kind})
    box.refused()


@pytest.mark.parametrize("kind", ["no-such-type", "", "net", "PID"])
def test_an_unknown_type_is_an_error(box, kind):
    """config.md, Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.linux["namespaces"].append({"type": kind})
    box.refused()


def test_the_container_sees_its_own_processes_alone(box):
    """Namespaces: `pid` "processes inside the container will only be able to see other processes inside"."""
    assert box.shell("set -- /proc/[0-9]*; echo $$ $@") == "1 /proc/1\n"


def test_the_container_has_a_network_stack_of_its_own(box):
    """Namespaces: `network` "the container will have its own network stack"."""
    assert box.shell("ip -o link | cut -d: -f2") == " lo\n"


def test_loopback_of_a_new_network_namespace_is_up(box):
    """runc and crun raise the loopback link, which callers rely on."""
    assert "UP" in box.shell("ip link show lo")


def test_a_network_device_is_moved_into_the_container(box):
    """Network devices: `netDevices` "describes the network devices to be moved to the container network namespace"."""
    name = f"oci{box.id[-6:]}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", f"{name}p"], check=True)
    try:
        box.linux["netDevices"] = {name: {"name": "eth7"}}
        assert "eth7" in box.shell("ip -o link")
    finally:
        subprocess.run(["ip", "link", "del", f"{name}p"], check=False, stderr=subprocess.DEVNULL)


# user namespaces


def test_ids_are_mapped_as_configured(user_namespace):
    """User namespace mappings: `uidMappings`, `gidMappings` "describes the user namespace uid mappings"."""
    printed = user_namespace.shell("cat /proc/self/uid_map /proc/self/gid_map")
    assert [line.split() for line in printed.splitlines()] == [["0", "100000", "65536"]] * 2


def test_several_mappings_are_all_made(user_namespace):
    """User namespace mappings: "array of objects"."""
    parts = [{"containerID": 0, "hostID": 100000, "size": 10}, {"containerID": 10, "hostID": 200000, "size": 90}]
    user_namespace.linux["uidMappings"] = user_namespace.linux["gidMappings"] = parts
    printed = user_namespace.shell("cat /proc/self/uid_map")
    assert [line.split() for line in printed.splitlines()] == [["0", "100000", "10"], ["10", "200000", "90"]]


def test_the_process_has_the_mapped_ids_on_the_host(user_namespace):
    """User: "specifies the user ID in the container namespace"."""
    user_namespace.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
    user_namespace.running()
    lines = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{user_namespace.pid}/status").read_text().splitlines()
        if ":" in line
    )
    assert (lines["Uid"].split()[0], lines["Gid"].split()[0], lines["Groups"].split()) == (
        "100005",
        "100006",
        ["100007"],
    )


def test_files_of_the_root_are_not_changed_to_realize_the_mapping(user_namespace):
    """User namespace mappings: "The runtime SHOULD NOT modify the ownership of referenced filesystems"."""
    before = {path: path.lstat().st_uid for path in user_namespace.rootfs.rglob("*")}
    user_namespace.shell("true")
    assert {path: path.lstat().st_uid for path in before} == before


def test_a_user_namespace_without_mappings_is_an_error(box):
    """config.md, Valid values: a new user namespace without a mapping has no root, which is an invalid value."""
    box.namespace("user")
    box.refused()


def test_root_of_a_user_namespace_has_its_capabilities_there_alone(user_namespace):
    """Namespaces: `user` "remap user and group IDs from the host to local users and groups within the container"."""
    all_sets = ("bounding", "effective", "permitted")
    user_namespace.process["capabilities"] = {name: ["CAP_SYS_ADMIN", "CAP_CHOWN"] for name in all_sets}
    result = user_namespace.run(
        "sh", "-c", "chown 3:3 /tmp && stat -c %u /tmp && ! chown 70000 /tmp && hostname x && echo ok"
    )
    assert result.ok().out == "3\nok\n"


# time namespaces


@pytest.mark.parametrize("clock", ["boottime", "monotonic"])
def test_the_clocks_of_a_time_namespace_are_offset(box, clock):
    """Offset for Time Namespace: `timeOffsets` "sets the offset for Time Namespace"."""
    box.namespace("time")
    box.linux["timeOffsets"] = {clock: {"secs": 1000000, "nanosecs": 5}}
    printed = box.shell("cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime").split()
    assert printed[printed.index(clock) + 1 :][:2] == ["1000000", "5"]
    assert (int(printed[-1]) > 1000000) == (clock == "boottime")


@pytest.mark.parametrize("fault", ["no namespace", "no such clock"])
def test_an_offset_that_cannot_be_set_is_an_error(box, fault):
    """config.md, Valid values: an offset needs a time namespace, and a clock that it has."""
    if fault != "no namespace":
        box.namespace("time")
    box.linux["timeOffsets"] = {"monotonic" if fault == "no namespace" else "realtime": {"secs": 10}}
    box.refused()


def test_a_time_namespace_is_a_new_one(box):
    """Namespaces: `time` "the container will be able to have its own clocks"."""
    box.namespace("time")
    assert box.run("readlink", "/proc/self/ns/time").ok().out.strip() != own("time")
