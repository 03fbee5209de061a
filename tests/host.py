"""A mount and network namespace that plays the host for tests as root, and the fixtures that go with it."""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgroups.cgroup import Cgroup, prepare
from cgroups.hierarchy import Hierarchy, find
from kernel import mounts, process
from kernel.errors import SystemCallError
from kernel.mountinfo import own_mounts
from netns.links import del_link
from netns.loopback import raise_loopback
from netns.netlink import Netlink
from runtime import inventory, leaks
from runtime.inventory import Inventory, Resource
from runtime.settings import Settings
from tests.boxes import Box

_SYS = Path("/sys")
_CGROUP = Path("/sys/fs/cgroup")
_SETTLE_SECONDS = 15.0


@pytest.fixture(scope="session", autouse=True)
def host(request: pytest.FixtureRequest) -> None:
    """Move the test process, once, into namespaces of its own: links, mounts and sysctls of tests stay there."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    process.unshare(process.CLONE_NEWNS | process.CLONE_NEWNET | process.CLONE_NEWUTS | process.CLONE_NEWIPC)
    mounts.mount("", "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    _allow_devices(Path("/tmp"))
    _mount_own_sysfs()
    raise_loopback()
    if request.config.getoption("--cgroup-layout") == "v2":
        _show_v2_alone(find())


@pytest.fixture
def v2_layout(host: None) -> Iterator[Hierarchy]:
    """The cgroup2 mount alone at /sys/fs/cgroup, for one test, as on a host without cgroup v1."""
    hierarchy = find()
    if hierarchy.mount == str(_CGROUP):
        yield hierarchy
        return
    _show_v2_alone(hierarchy)
    try:
        yield find()
    finally:
        mounts.umount2(_CGROUP, mounts.MNT_DETACH)


@pytest.fixture
def settings(host: None) -> Iterator[Settings]:
    """An instance of rawpod of its own: directories, cgroup, bridge and subnet that no other test has."""
    name = secrets.token_hex(4)
    # Not tmp_path: with a pod's uid in it, a socket's path has at most 107 bytes (unix(7)).
    home = Path(tempfile.mkdtemp(prefix=f"rp-{name}-", dir="/tmp"))
    settings = Settings(
        root=home / "root",
        state=home / "state",
        cgroup=f"/rawpod-test-{name}",
        bridge=f"rpt{name}",
        subnet=f"10.{128 + secrets.randbelow(120)}.0.0/16",
        socket=home / "state/rawpod.sock",
        missing_controllers="warn",
    )
    for directory in (settings.root, settings.state):
        directory.mkdir(mode=0o700)
    yield settings
    _clear(settings, home)


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A directory on a filesystem that maps ids in every kernel: /tmp may be a tmpfs, which does from Linux 6.3 on."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="rawpod-test-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture(autouse=True)
def leak_oracle(settings: Settings) -> Iterator[None]:
    """Fail a test after which anything exists that did not exist before, or the other way round."""

    def snapshot() -> Inventory:
        return leaks.snapshot(settings, watched=[os.getpid()], alone=True)

    before = snapshot()
    yield
    # The kernel ends namespaces and what is in them in its own time.
    deadline = time.monotonic() + _SETTLE_SECONDS
    pause = 0.001
    while lines := leaks.difference(*without_others_mounts(before, snapshot())):
        if time.monotonic() > deadline:
            pytest.fail("the test left a trace:\n" + "\n".join(lines), pytrace=False)
        gc.collect()
        time.sleep(pause)
        pause = min(pause * 2, 0.2)


def without_others_mounts(before: Inventory, after: Inventory) -> tuple[Inventory, Inventory]:
    """Two snapshots, less the mounts that ended because a process elsewhere removed the directory they were on.

    Removing a mount point in one mount namespace unmounts it in all others, private or not (mount_namespaces(7)): what
    the host had mounted for a while, such as mmdebstrap for an image, ends here without our doing.
    """

    def removed(item: Resource) -> bool:
        return item.kind == "mount" and not os.path.lexists(item.name.rpartition(" (")[0])

    return before - Inventory({item: count for item, count in (before - after).items() if removed(item)}), after


@pytest.fixture
def hierarchy(host: None) -> Hierarchy:
    """The cgroup hierarchy as the tests see it."""
    return find()


@pytest.fixture
def cgroup(settings: Settings, hierarchy: Hierarchy) -> Iterator[Cgroup]:
    """A fresh cgroup that has every controller of this host; whatever is in it afterwards is killed and removed."""
    subtree = Cgroup(hierarchy.subtree(settings.cgroup))
    prepare(hierarchy.root, subtree, hierarchy.controllers)
    cgroup = subtree.child("test").create()
    yield cgroup
    _remove(cgroup)


@pytest.fixture(scope="session")
def probe() -> Path:
    """A statically linked program with a shell and the usual tools, which runs in a root that holds nothing else."""
    found = shutil.which("busybox") or next((str(path) for path in (Path("/usr/lib/busybox/busybox-static"),)), "")
    if not found or not Path(found).exists():
        pytest.skip("needs busybox-static")
    return Path(found).resolve()


@pytest.fixture
def box(tmp_path: Path, probe: Path, cgroup: Cgroup, hierarchy: Hierarchy) -> Box:
    """A root filesystem to run containers in."""
    return Box(tmp_path / "bundle", probe, cgroup, hierarchy).prepare()


def _allow_devices(directory: Path) -> None:
    """Where tests have their roots: systemd mounts /tmp with nodev, and a container's root keeps that."""
    flags = os.statvfs(directory).f_flag
    if directory.is_mount() and flags & os.ST_NODEV:
        kept = mounts.MS_NOSUID if flags & os.ST_NOSUID else 0
        mounts.mount(None, directory, None, mounts.MS_REMOUNT | mounts.MS_BIND | kept)


def _mount_own_sysfs() -> None:
    """A sysfs of the new network namespace, with the cgroup mounts of the old one put back."""
    tree = mounts.open_tree(mounts.AT_FDCWD, _CGROUP, mounts.OPEN_TREE_CLONE | mounts.AT_RECURSIVE)
    try:
        # Not hidden below the new one: podman unmounts what is listed below /sys before it makes a user namespace.
        mounts.umount2(_SYS, mounts.MNT_DETACH)
        mounts.mount("sysfs", _SYS, "sysfs", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)
        mounts.move_mount(tree, "", mounts.AT_FDCWD, _CGROUP, mounts.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def _show_v2_alone(hierarchy: Hierarchy) -> None:
    if hierarchy.mount != str(_CGROUP):
        mounts.mount(hierarchy.mount, _CGROUP, None, mounts.MS_BIND)


def _remove(cgroup: Cgroup) -> None:
    if cgroup.exists():
        cgroup.kill()
        cgroup.wait_empty(10)
        cgroup.delete()


def _clear(settings: Settings, home: Path) -> None:
    """Remove what a failed test left, once the oracle has seen it, so that one failure does not make others."""
    _remove(Cgroup(find().subtree(settings.cgroup)))
    for name, bridge in inventory.links().items():
        if settings.bridge in (name, bridge):
            with Netlink() as netlink:
                netlink.request(del_link(name))
    for row in reversed(own_mounts()):
        if home in Path(row.mount_point).parents:
            with contextlib.suppress(SystemCallError):
                mounts.umount2(row.mount_point, mounts.MNT_DETACH)
    shutil.rmtree(home, ignore_errors=True)
