"""The container's /dev and its console."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from kernel.operation import Assembly
from rootfs.mounts import (
    Console,
    Dev,
    Device,
    Devices,
    PivotRoot,
    Proc,
    from_oci,
)
from tests.rootfs_lab import ChildError, assembled

pytest_plugins = ["tests.rootfs_fixtures"]

PTS = from_oci("/dev/pts", "devpts", "devpts", ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])


DEVICES = (
    Device("/dev/null", "c", 1, 3),
    Device("/dev/net/tun", "c", 10, 200, 0o600, 1, 2),
    Device("/dev/pipe", "p", 0, 0),
)


def test_dev_holds_the_devices_and_links(root: Path) -> None:
    def look(_: Assembly) -> list[Any]:
        tun = os.stat("/dev/net/tun")
        names = sorted(os.listdir("/dev"))
        return [names, tun.st_rdev, tun.st_mode & 0o7777, tun.st_uid, tun.st_gid, os.readlink("/dev/ptmx")]

    names = [
        *(["core"] if os.path.exists("/proc/kcore") else []),
        "fd",
        "mqueue",
        "net",
        "null",
        "pipe",
        "ptmx",
        "pts",
        "shm",
        "stderr",
        "stdin",
        "stdout",
    ]
    assert assembled(root, [Dev(devices=DEVICES), PivotRoot()], look) == [
        names,
        os.makedev(10, 200),
        0o600,
        1,
        2,
        "pts/ptmx",
    ]


def test_devices_are_bound_where_they_cannot_be_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "mknod", forbidden)

    def look(_: Assembly) -> list[Any]:
        with open("/dev/zero", "rb") as zero, open("/dev/null", "wb") as null:
            null.write(b"x")
            return [len(zero.read(10)), os.fstat(null.fileno()).st_rdev]

    assert assembled(root, [Dev(), PivotRoot()], look) == [10, os.makedev(1, 3)]
    with pytest.raises(ChildError, match=r"1:4"):
        assembled(root, [Dev(devices=(Device("/dev/null", "c", 1, 4),))])


def test_devices_go_anywhere_in_the_root_and_nowhere_else(root: Path, outside: Path) -> None:
    """The mode is the one asked for, whatever the umask; a link on the way is followed inside the root."""
    (root / "way").symlink_to(outside)
    (root / str(outside)[1:]).mkdir(parents=True)
    devices = (Device("/srv/a/fuse", "c", 10, 229, 0o666, 7, 8), Device("/way/pipe", "p", 0, 0, 0o622))

    def look(_: Assembly) -> list[Any]:
        fuse, pipe = os.stat("/srv/a/fuse"), os.stat("/way/pipe")
        return [fuse.st_rdev, fuse.st_mode, fuse.st_uid, fuse.st_gid, pipe.st_mode]

    os.umask(0o077)
    try:
        seen = assembled(root, [Devices(devices), PivotRoot()], look)
    finally:
        os.umask(0o022)
    assert seen == [os.makedev(10, 229), stat.S_IFCHR | 0o666, 7, 8, stat.S_IFIFO | 0o622]


def test_what_is_there_in_place_of_a_device_has_to_be_it(root: Path) -> None:
    os.mknod(root / "etc/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert assembled(root, [Devices((Device("/etc/null", "c", 1, 3),))]) is None
    for wrong in (Device("/etc/null", "c", 1, 5), Device("/etc/passwd", "c", 1, 3), Device("/etc/null", "p", 0, 0)):
        with pytest.raises(ChildError, match="something else"):
            assembled(root, [Devices((wrong,))])


def test_nothing_is_made_in_a_dev_of_the_hosts(root: Path) -> None:
    (root / "dev").mkdir()
    os.mknod(root / "dev/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    there, missing = Device("/dev/null", "c", 1, 3), Device("/dev/xvda", "b", 202, 0)
    assert assembled(root, [Devices((there,), host_dev=True)]) is None
    with pytest.raises(ChildError, match=r"'/dev/xvda'.*nothing is made"):
        assembled(root, [Devices((there, missing), host_dev=True)])
    assert os.listdir(root / "dev") == ["null"]


def test_ptmx_is_the_devpts_s_own_whatever_is_asked_for(root: Path) -> None:
    devices = (Device("/dev/ptmx", "c", 5, 2), Device("/dev/fd", "c", 1, 3))
    look = [os.readlink, os.path.islink]
    seen = assembled(root, [Dev(devices=devices), PivotRoot()], lambda _: [look[0]("/dev/ptmx"), look[1]("/dev/fd")])
    assert seen == ["pts/ptmx", False]


def test_the_console_is_the_terminal_that_was_made(root: Path) -> None:
    """CVE-2025-52565. The image's own /dev/console and /dev/pts/ptmx are under the fresh mounts."""
    (root / "dev/pts").mkdir(parents=True)
    (root / "dev/console").symlink_to("/etc/passwd")
    (root / "dev/pts/ptmx").write_text("")

    def look(assembly: Assembly) -> list[Any]:
        os.write(assembly.fds["terminal"], b"to the master")
        with open("/dev/console", "rb", buffering=0) as console:
            os.write(assembly.fds["console"], b"to the payload\n")
            read = console.read(100).decode()
            return [
                os.read(assembly.fds["console"], 13).decode(),
                read,
                os.fstat(console.fileno()).st_rdev == os.fstat(assembly.fds["terminal"]).st_rdev,
                os.get_terminal_size(assembly.fds["terminal"]),
            ]

    seen = assembled(root, [Proc("/proc"), Dev(), PTS, Console(100, 40), PivotRoot()], look)
    assert seen == ["to the master", "to the payload\n", True, [100, 40]]


def test_a_console_without_a_devpts_is_refused(root: Path) -> None:
    (root / "dev/pts").mkdir(parents=True)
    os.mknod(root / "dev/pts/ptmx", stat.S_IFCHR | 0o666, os.makedev(5, 2))
    with pytest.raises(ChildError):
        assembled(root, [Console()])
