"""What is mounted in a root, with the flags that were asked for."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernel import mounts as kernel_mounts
from kernel.mounts import MOUNT_ATTR_RDONLY, MS_REC, MS_SHARED, MS_SLAVE
from kernel.operation import Assembly, Operation, run
from kernel.paths import open_in_root
from kernel.process import CLONE_NEWNS
from rootfs.mounts import (
    Bind,
    BindRoot,
    CgroupView,
    Dev,
    MakePropagation,
    Mask,
    PinSource,
    PivotRoot,
    Proc,
    ReadOnly,
    ReadOnlyRoot,
    Sysfs,
    Tmpfs,
    from_oci,
)
from tests.rootfs_lab import ChildError, assembled, in_child

pytest_plugins = ["tests.rootfs_fixtures"]

PTS = from_oci("/dev/pts", "devpts", "devpts", ["newinstance"])


def mount_options(path: str) -> set[str]:
    """The flags of the topmost mount on `path`, as the calling process sees it."""
    with open("/proc/self/mountinfo") as file:
        rows = [line.split() for line in file]
    return set([row[5] for row in rows if row[4] == path][-1].split(","))


def test_all_of_it_together(root: Path, outside: Path) -> None:
    def look(_: Assembly) -> dict[str, Any]:
        return {
            "root": sorted(os.listdir("/")),
            "pid": os.readlink("/proc/self"),
            "null": os.stat("/dev/null").st_rdev,
            "cwd": os.getcwd(),
            "data": os.listdir("/data/deep"),
            "mounts": sum(1 for _ in open("/proc/self/mountinfo")),
        }

    operations = [Proc("/proc"), Dev(), PTS, Tmpfs("/dev/shm"), Sysfs("/sys", MOUNT_ATTR_RDONLY)]
    operations += [CgroupView("/sys/fs/cgroup", MOUNT_ATTR_RDONLY), Bind(str(outside), "/data/deep"), PivotRoot()]
    seen = assembled(root, operations, look)
    assert seen["root"] == ["data", "dev", "etc", "proc", "sys", "tmp"]
    assert (seen["pid"], seen["cwd"], seen["data"]) == ("1", "/", ["secret"])
    assert seen["null"] == os.makedev(1, 3)
    assert seen["mounts"] == 8


def test_masks_hide_files_directories_and_nothing_that_is_not_there(root: Path) -> None:
    (root / "dir").mkdir()
    (root / "dir/file").touch()

    def look(assembly: Assembly) -> list[Any]:
        directory = open_in_root(assembly.root, "/dir", os.O_RDONLY)
        try:
            os.mkdir("new", dir_fd=directory)
        except OSError as error:
            refused = error.errno
        return [
            os.listdir(directory),
            refused,
            os.read(open_in_root(assembly.root, "/etc/passwd", os.O_RDONLY), 10).decode(),
        ]

    masks = [Mask("/dir"), Mask("/etc/passwd"), Mask("/missing"), Mask("/etc/passwd/below")]
    assert assembled(root, masks, look) == [[], 30, ""]


def test_read_only_paths_with_all_that_is_mounted_below(root: Path, outside: Path) -> None:
    def look(_: Assembly) -> list[bool]:
        return [os.access(path, os.W_OK) for path in ("/data", "/data/deep", "/etc", "/proc/sys/kernel", "/tmp")]

    operations = [Proc("/proc"), Tmpfs("/data"), Tmpfs("/data/deep"), ReadOnly("/data"), ReadOnly("/etc")]
    operations += [ReadOnly("/proc/sys"), ReadOnly("/missing"), PivotRoot()]
    assert assembled(root, operations, look) == [False, False, False, False, True]


def test_a_read_only_root_leaves_its_mounts_writable(root: Path) -> None:
    def look(_: Assembly) -> list[bool]:
        return [os.access(path, os.W_OK) for path in ("/", "/etc", "/tmp")]

    assert assembled(root, [Tmpfs("/tmp"), ReadOnlyRoot(), PivotRoot()], look) == [False, False, True]


@pytest.mark.parametrize(
    ("options", "there", "below"),
    [
        (["rbind", "ro"], {"ro"}, {"rw"}),
        (["rbind", "rro"], {"ro"}, {"ro"}),
        (
            ["rbind", "ro", "rnosuid", "rnodev", "noexec"],
            {"ro", "nosuid", "nodev", "noexec"},
            {"rw", "nosuid", "nodev"},
        ),
        (["rbind", "noatime"], {"noatime"}, {"relatime"}),
        (["rbind", "rnoatime", "nosymfollow"], {"noatime", "nosymfollow"}, {"noatime"}),
        (["rbind", "rro", "rw"], {"rw"}, {"ro"}),
    ],
)
def test_flags_of_binds_reach_as_far_as_they_say(
    root: Path, outside: Path, options: list[str], there: set[str], below: set[str]
) -> None:
    def look(_: Assembly) -> list[list[str]]:
        return [sorted(mount_options("/data")), sorted(mount_options("/data/below"))]

    source = root.parent / "source"
    (source / "below").mkdir(parents=True)

    def work() -> Any:
        kernel_mounts.mount("tmpfs", source / "below", "tmpfs")
        return assembled(root, [Proc("/proc"), from_oci("/data", "bind", str(source), options), PivotRoot()], look)

    top, sub = in_child(work)
    assert there <= set(top)
    assert below <= set(sub)


def test_a_plain_bind_leaves_what_is_mounted_below_behind(root: Path) -> None:
    source = root.parent / "source"
    (source / "below").mkdir(parents=True)

    def work() -> Any:
        kernel_mounts.mount("tmpfs", source / "below", "tmpfs")
        (source / "below/file").touch()
        bind = from_oci("/data", None, str(source), ["bind"])
        return assembled(root, [bind, PivotRoot()], lambda _: os.listdir("/data/below"))

    assert in_child(work) == []


def test_remount_changes_what_is_there(root: Path) -> None:
    operations = [
        Proc("/proc"),
        Tmpfs("/data"),
        from_oci("/data", None, None, ["remount", "ro", "nosuid"]),
        PivotRoot(),
    ]
    options = assembled(root, operations, lambda _: sorted(mount_options("/data")))
    assert {"ro", "nosuid"} <= set(options)


def test_missing_sources_are_named(root: Path) -> None:
    with pytest.raises(ChildError, match="'/missing/source'") as caught:
        assembled(root, [Bind("/missing/source", "/data")])
    assert caught.value.kind == "NotFound"


def test_a_tmpfs_takes_the_mode_of_what_it_covers_and_its_contents_if_asked(root: Path) -> None:
    (root / "etc").chmod(0o1750)
    (root / "etc/link").symlink_to("passwd")
    (root / "etc/dir").mkdir(mode=0o700)
    os.chown(root / "etc/dir", 7, 8)
    os.mkfifo(root / "etc/fifo")

    def look(_: Assembly) -> list[Any]:
        status, below = os.stat("/etc"), os.stat("/etc/dir")
        with open("/etc/link") as file:
            return [
                status.st_mode & 0o7777,
                sorted(os.listdir("/etc")),
                below.st_uid,
                below.st_mode & 0o7777,
                file.read(),
            ]

    copied = from_oci("/etc", "tmpfs", "tmpfs", ["tmpcopyup"])
    expected = [0o1750, ["dir", "link", "passwd"], 7, 0o700, "root:x:0:0::/:/bin/sh\n"]
    assert assembled(root, [copied, PivotRoot()], look) == expected
    given = from_oci("/etc", "tmpfs", "tmpfs", ["tmpcopyup", "mode=700", "size=64k"])
    assert assembled(root, [given, PivotRoot()], look) == [0o700, *expected[1:]]
    empty = from_oci("/etc", "tmpfs", "tmpfs", ["size=64k"])
    assert assembled(root, [empty, PivotRoot()], lambda _: [os.stat("/etc").st_mode & 0o7777, os.listdir("/etc")]) == [
        0o1750,
        [],
    ]


def test_a_bad_option_of_a_filesystem_is_explained_by_the_kernel(root: Path) -> None:
    with pytest.raises(ChildError, match="sizee"):
        assembled(root, [from_oci("/data", "tmpfs", "tmpfs", ["sizee=1"])])


@pytest.mark.parametrize(
    ("propagation", "arrives"), [(0, False), (MS_SLAVE | MS_REC, True), (MS_SHARED | MS_REC, True)]
)
def test_later_mounts_of_the_host_arrive_in_slave_and_shared_binds(root: Path, propagation: int, arrives: bool) -> None:
    source = root.parent / "source"
    (source / "later").mkdir(parents=True)

    def work() -> bool:
        # This process plays the host: its mount is shared, the container is its child.
        kernel_mounts.mount("tmpfs", source, "tmpfs")
        kernel_mounts.mount(None, source, None, MS_SHARED)
        (source / "later").mkdir()
        pinned = "source" if propagation else ""
        bind = Bind(str(source), "/data", propagation=propagation or Bind.propagation, pinned=pinned)
        ready, started = os.pipe()
        go, release = os.pipe()
        answer, said = os.pipe()

        def look(_: Assembly) -> None:
            os.write(started, b"!")
            os.read(go, 1)
            os.write(said, b"1" if os.path.ismount("/data/later") else b"0")

        container = os.fork()
        if container == 0:
            try:
                pins: list[Operation] = [PinSource(str(source), pinned)] if pinned else []
                assembled_after_pins(root, pins, [bind, PivotRoot()], look)
            finally:
                os._exit(0)
        os.read(ready, 1)
        kernel_mounts.mount("tmpfs", source / "later", "tmpfs")
        os.write(release, b"!")
        os.waitpid(container, 0)
        return os.read(answer, 1) == b"1"

    assert in_child(work, CLONE_NEWNS) is arrives


def assembled_after_pins(
    root: Path, pins: list[Operation], operations: list[Operation], look: Callable[[Assembly], None]
) -> None:
    """As assembled(), with operations that come before the mount namespace is cut off."""

    def work() -> None:
        assembly = Assembly()
        run((*pins, MakePropagation(), BindRoot(str(root)), *operations), assembly)
        look(assembly)

    in_child(work)


def test_nothing_of_the_old_root_is_left_after_pivot_root(root: Path, outside: Path) -> None:
    def look(_: Assembly) -> list[Any]:
        with open("/proc/self/mountinfo") as file:
            return [os.path.exists(outside), len(file.readlines()), os.listdir("/..") == os.listdir("/")]

    assert assembled(root, [Proc("/proc"), PivotRoot()], look) == [False, 2, True]
