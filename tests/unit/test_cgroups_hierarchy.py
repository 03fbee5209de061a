"""Finding the cgroup2 mount and our part of it, from the text of /proc alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cgroups.hierarchy import Hierarchy, delegated, find
from cgroups.membership import parse_membership
from kernel.errors import BadInput, HostError
from kernel.mountinfo import parse_mountinfo, unescape


class Host:
    """A /proc and a cgroup tree in a temporary directory."""

    def __init__(self, tmp_path: Path) -> None:
        self.proc = tmp_path / "proc"
        self.cgroup = tmp_path / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.cgroup.mkdir()
        status = self.cgroup.stat()
        self.device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        self.rows: list[str] = []

    def mount(
        self, point: str, root: str = "/", filesystem: str = "cgroup2", options: str = "rw", device: str = ""
    ) -> None:
        path = self.cgroup / point
        path.mkdir(parents=True, exist_ok=True)
        number = 30 + len(self.rows)
        self.rows.append(
            f"{number} 23 {device or self.device} {root} {path} rw,relatime shared:9 - {filesystem} none {options}"
        )

    def make(self, cgroup: str, controllers: str = "cpu memory") -> Path:
        path = self.cgroup / cgroup
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.controllers").write_text(f"{controllers}\n")
        return path

    def find(self, membership: str) -> Hierarchy:
        (self.proc / "self/mountinfo").write_text("".join(f"{row}\n" for row in self.rows))
        (self.proc / "self/cgroup").write_text(membership)
        return find(str(self.proc))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_with_v2_alone(host: Host) -> None:
    host.mount("")
    host.make("", "cpuset cpu io memory pids")
    host.make("user.slice/session-1.scope")
    found = host.find("0::/user.slice/session-1.scope\n")
    assert found.mount == str(host.cgroup)
    assert found.root == str(host.cgroup)
    assert found.own == f"{host.cgroup}/user.slice/session-1.scope"
    assert found.controllers == {"cpuset", "cpu", "io", "memory", "pids"}
    assert not found.hybrid
    assert found.at("/rawpod-demo") == f"{host.cgroup}/rawpod-demo"
    assert found.name(f"{host.cgroup}/rawpod-demo/pod") == "/rawpod-demo/pod"
    assert found.subtree(None) == f"{host.cgroup}/rawpod"
    assert found.subtree("/other") == f"{host.cgroup}/other"


def test_a_hybrid_host_says_which_controllers_are_on_v1_and_what_moves_them(host: Host) -> None:
    host.mount("memory", filesystem="cgroup", options="rw,memory")
    host.mount("cpu,cpuacct", filesystem="cgroup", options="rw,cpu,cpuacct")
    host.mount("unified")
    host.make("unified", "hugetlb")
    found = host.find("12:name=systemd:/\n4:memory:/process/x\n3:cpu,cpuacct:/\n2:blkio:/\n0::/\n")
    assert found.hybrid
    assert found.mount == f"{host.cgroup}/unified"
    assert found.controllers == {"hugetlb"}
    assert found.v1_controllers == {
        "memory": f"{host.cgroup}/memory",
        "cpu": f"{host.cgroup}/cpu,cpuacct",
        "cpuacct": f"{host.cgroup}/cpu,cpuacct",
        "blkio": None,
    }
    assert "cgroup_no_v1=memory" in found.remedy("memory")
    assert "cgroup_no_v1=blkio" in found.remedy("io")
    assert "built without" in found.remedy("rdma")


def test_a_cgroup_namespace_shows_our_cgroup_as_the_root(host: Host) -> None:
    host.mount("")
    host.make("", "cpu")
    found = host.find("0::/\n")
    assert found.own == found.root == str(host.cgroup)


def test_a_mount_of_a_part_of_the_tree_is_used_with_its_root(host: Host) -> None:
    host.mount("", root="/docker/abc")
    host.make("init")
    host.make("")
    found = host.find("0::/docker/abc/init\n")
    assert found.own == f"{host.cgroup}/init"
    assert found.at("/docker/abc/rawpod") == f"{host.cgroup}/rawpod"
    assert found.name(f"{host.cgroup}/rawpod") == "/docker/abc/rawpod"
    with pytest.raises(BadInput, match="outside of"):
        found.at("/rawpod")
    with pytest.raises(BadInput, match="outside of"):
        found.at("/docker/abcdef")


def test_of_several_mounts_the_one_that_shows_our_cgroup_is_taken(host: Host) -> None:
    host.mount("part", root="/elsewhere")
    host.mount("whole")
    host.make("whole/x")
    host.make("whole")
    assert host.find("0::/x\n").mount == f"{host.cgroup}/whole"


def test_a_mount_that_another_one_covers_is_not_taken_for_a_cgroup_of_its_name(host: Host) -> None:
    host.mount("unified")
    host.mount("")
    host.make("")
    assert host.find("0::/\n").mount == str(host.cgroup)


def test_a_mount_from_above_the_cgroup_namespace_is_refused(host: Host) -> None:
    host.mount("", root="/../..")
    host.make("")
    with pytest.raises(HostError, match="mount one in this cgroup namespace"):
        host.find("0::/\n")


def test_a_mount_that_another_one_covers_is_not_used(host: Host) -> None:
    host.mount("", device="0:9999")
    with pytest.raises(HostError, match="unified_cgroup_hierarchy=1"):
        host.find("0::/\n")


def test_without_a_cgroup2_mount_the_remedy_is_given(host: Host) -> None:
    host.mount("memory", filesystem="cgroup", options="rw,memory")
    with pytest.raises(HostError, match="no cgroup2 file system is mounted") as caught:
        host.find("4:memory:/\n0::/\n")
    assert caught.value.remedy is not None
    assert "mount -t cgroup2" in caught.value.remedy


def test_a_kernel_without_cgroup_v2_is_refused(host: Host) -> None:
    with pytest.raises(HostError, match="no cgroup v2"):
        host.find("4:memory:/\n")


def test_a_disabled_controller_names_the_kernel_option(host: Host) -> None:
    host.mount("")
    host.make("", "cpu")
    (host.proc / "cgroups").write_text("#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\ncpu\t0\t1\t1\n")
    found = host.find("0::/\n")
    assert found.disabled == {"memory"}
    assert "cgroup_enable=memory" in found.remedy("memory")


def test_without_a_mark_of_delegation_the_mount_is_ours(tmp_path: Path) -> None:
    deep = tmp_path / "a/b"
    deep.mkdir(parents=True)
    assert delegated(str(deep), str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("path", ["rawpod", "", "/../rawpod", "/a/../../b"])
def test_a_cgroup_path_that_is_relative_or_climbs_is_refused(host: Host, path: str) -> None:
    host.mount("")
    host.make("")
    with pytest.raises(BadInput, match="absolute path"):
        host.find("0::/\n").at(path)


def test_mountinfo_with_escapes_and_any_number_of_optional_fields() -> None:
    text = (
        "31 23 0:28 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw\n"
        "32 23 8:1 /root /x rw,nosuid shared:1 master:2 propagate_from:3 - ext4 /dev/sda1 rw,errors=remount-ro\n"
    )
    first, second = parse_mountinfo(text)
    assert first.mount_point == "/mnt/a b\\c"
    assert second.device == (8, 1)
    assert second.filesystem == "ext4"
    assert second.root == "/root"
    assert "errors=remount-ro" in second.super_options


def test_unescape_leaves_plain_text_alone() -> None:
    assert unescape("/plain") == "/plain"
    assert unescape("\\011tab\\012") == "\ttab\n"


def test_membership_of_a_removed_cgroup() -> None:
    assert parse_membership("0::/gone (deleted)\n").unified == "/gone"


def test_membership_with_colons_in_the_path() -> None:
    found = parse_membership("5:devices:/a:b\n0::/c:d\n")
    assert found.unified == "/c:d"
    assert found.v1 == {"devices": "/a:b"}
