"""Holes around the cgroup tree that a container sees (the numbers are those of docs/security-corpus.md).

Each test says by which change it was seen to fail.
"""

from pathlib import Path

import pytest

from kernel.names import CAPABILITIES
from runtime import spec
from tests.linux.test_corpus_mounts import ran
from tests.pods import container, pods, settings_on_disk

__all__ = ["pods", "settings_on_disk"]

WRITE = """
for file in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.subtree_control; do
    (echo 0 > $file) 2>/dev/null && echo "wrote $file"
done
mkdir /sys/fs/cgroup/mine 2>/dev/null && echo made
"""
WRITABLE = """
while read _ _ _ _ target options rest; do
    case "$target $options" in /sys*" ro"*) ;; /sys*) echo "$target is writable" ;; esac
done < /proc/self/mountinfo
"""
REMOUNT = """
busybox mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted
busybox umount /sys/fs/cgroup 2>/dev/null && echo unmounted
busybox mount -t cgroup2 none /tmp 2>/dev/null && echo "mounted v2"
for kind in memory cpu devices rdma name=x; do
    busybox mount -t cgroup -o $kind none /tmp 2>/dev/null && echo "mounted $kind"
done
"""
SHOW = """
while read _ _ _ _ target rest; do
    case "$rest" in *" - cgroup "*) echo "v1 at $target" ;; *" - cgroup2 "*) echo "v2 at $target" ;; esac
done < /proc/self/mountinfo
busybox find / -name release_agent -o -name notify_on_release 2>/dev/null
"""


def in_the_hosts_user_namespace(_config):
    """With the cgroup namespace that every description of the tests has."""


def in_its_own_user_namespace(config):
    config.linux.namespaces.append(spec.Namespace("user"))
    config.linux.uid_mappings = config.linux.gid_mappings = [spec.IDMapping(0, 0x20000, 0x10000)]


def in_the_hosts_cgroup_namespace(config):
    config.linux.namespaces = [one for one in config.linux.namespaces if one.type != "cgroup"]


def with_a_hosts_sysfs(config):
    """CVE-2023-25809 as it was found: no network namespace of its own, so that /sys is the host's, bound with all."""
    in_its_own_user_namespace(config)
    in_the_hosts_cgroup_namespace(config)
    config.linux.namespaces = [one for one in config.linux.namespaces if one.type != "network"]


KINDS = [
    in_the_hosts_user_namespace,
    in_its_own_user_namespace,
    in_the_hosts_cgroup_namespace,
    with_a_hosts_sysfs,
]


@pytest.fixture
def own(v2_layout, on_disk, box):
    """A root that users of their own may have; its cgroup is named as this layout names it."""
    for path in (box.bundle, *box.bundle.parents):
        if path.stat().st_mode & 0o005 != 0o005 and path.is_relative_to("/tmp/pytest-of-root"):
            path.chmod(0o755)
    return box


@pytest.mark.parametrize("kind", KINDS)
def test_row_7_the_cgroup_tree_cannot_be_written(own, v2_layout, kind):
    """CVE-2023-25809: read-only means the cgroup tree, too, wherever it comes from, for all of root's users.

    Seen to fail with 0 for the attributes in Filesystem.make(), and in _OfTheKernel.make() for bound().
    """
    config = own.config("sh", "-c", WRITE + WRITABLE + "echo end")
    kind(config)
    assert ran(own, config) == "end\n"


def test_row_7_without_a_mount_of_it_in_the_description_a_hosts_sysfs_brings_none_that_can_be_written(own, v2_layout):
    """CVE-2023-25809: what was mounted below the host's /sys came with it, writable.

    Seen to fail without AT_RECURSIVE for the attributes in filesystems.bound().
    """
    config = own.config("sh", "-c", WRITE + WRITABLE + "[ -e /sys/fs/cgroup/cgroup.procs ] && echo there; echo end")
    with_a_hosts_sysfs(config)
    config.mounts = [mount for mount in config.mounts if mount.type != "cgroup"]
    assert ran(own, config) == "there\nend\n"


def test_row_7_and_44_a_pods_view_is_its_own_and_read_only(pods):
    """CVE-2023-25809, CVE-2022-0492, for pods as they are by default and with users of their own.

    Seen to fail with "rw" for the cgroup mount of runtime.pod.compile.
    """
    script = (WRITE + REMOUNT + SHOW + "grep ^0:: /proc/self/cgroup").replace("busybox ", "")
    for users in ({}, {"hostUsers": False}):
        pod = pods.start(container("main", "sh", "-c", script), restartPolicy="Never", **users)
        assert pod.ended()["phase"] == "Succeeded", pod.log("main")
        assert pod.log("main") == "v2 at /sys/fs/cgroup\n0::/\n"


def test_row_44_there_is_no_v1_hierarchy_and_no_release_agent(box):
    """CVE-2022-0492: a release agent is a program that the host's kernel runs, as root, outside.

    On a host that has v1 hierarchies "cgroup" in a description is still cgroup v2 and nothing else. Seen to fail with
    the host's /sys/fs/cgroup bound in CgroupView.make(): the v1 hierarchies are there.
    """
    assert ran(box, box.config("sh", "-c", SHOW)) == "v2 at /sys/fs/cgroup\n"


def test_row_44_no_capability_makes_one_but_that_of_mounting(box):
    """CVE-2022-0492: mounting a hierarchy needs CAP_SYS_ADMIN, which nothing but a description gives.

    Seen to fail with CAP_SYS_ADMIN in the list: cgroup v2 is mounted, and what is read-only is remounted.
    """
    config = box.config("sh", "-c", REMOUNT + "echo end")
    names = [name for name in CAPABILITIES if name != "CAP_SYS_ADMIN"]
    config.process.capabilities = spec.Capabilities(bounding=names, permitted=names, effective=names)
    assert ran(box, config) == "end\n"


def test_row_44_a_user_namespace_made_inside_gives_no_such_right(pods):
    """CVE-2022-0492 as it was found: `unshare -UrmC` inside gave CAP_SYS_ADMIN, and the kernel asked for no more.

    Seen to fail without the default seccomp profile: the user namespace is made.
    """
    script = "unshare -UrmC true 2>/dev/null && echo made; unshare -Ur true 2>/dev/null && echo made; echo end"
    pod = pods.start(container("main", "sh", "-c", script), restartPolicy="Never")
    assert pod.ended()["phase"] == "Succeeded"
    assert pod.log("main") == "end\n"


def test_row_48_nothing_that_supervises_is_below_the_pods_cgroup(pods):
    """CVE-2019-14891: a limit, a kill or a freeze of the pod reaches its payloads and nobody else.

    Seen to fail with the monitor forked without the system cgroup in spawner.launch().
    The kill stands in for the kernel's, for which the memory controller would have to be on cgroup v2.
    """
    pod = pods.start(container("one", "sleep", "1000000"), container("two", "sleep", "1000000"))
    status = pod.running()
    top = pod.cgroup("one").parent
    payloads = {pod.process(name)["pid"] for name in ("one", "two")}
    below = {int(pid) for path in top.rglob("cgroup.procs") for pid in path.read_text().split()}
    below |= {int(pid) for pid in (top / "cgroup.procs").read_text().split()}
    assert below == payloads
    monitor = status["rawpod"]["monitor"]["pid"]
    own = Path(f"/proc/{monitor}/cgroup").read_text().splitlines()[-1].partition("::")[2]
    assert own == f"{pods.settings.cgroup}/system"
    # What an OOM kill of the whole group does (memory.oom.group), by hand: everything in it ends, and is reported.
    (top / "cgroup.kill").write_text("1")
    after = pod.wait(lambda now: all(c["restartCount"] >= 1 for c in now["containerStatuses"]))
    assert after["rawpod"]["monitor"]["pid"] == monitor
