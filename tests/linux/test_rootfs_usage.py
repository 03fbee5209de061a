"""What a directory takes of its disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernel.mounts import MNT_DETACH, mount, umount2
from rootfs.usage import usage

pytestmark = pytest.mark.userland


def test_blocks_count_once_and_holes_and_other_filesystems_do_not(on_disk: Path) -> None:
    top = on_disk / "v"
    (top / "a/b").mkdir(parents=True)
    empty = usage(str(top))
    (top / "a/b/file").write_bytes(bytes(1 << 20))
    os.link(top / "a/b/file", top / "again")
    with (top / "hole").open("wb") as hole:
        hole.truncate(1 << 30)
    (top / "out").symlink_to("/usr")
    (top / "mount").mkdir()
    mount("tmpfs", top / "mount", "tmpfs", 0, None)
    try:
        (top / "mount/file").write_bytes(bytes(1 << 20))
        assert 1 << 20 <= usage(str(top)) - empty <= (1 << 20) + 65536
    finally:
        umount2(top / "mount", MNT_DETACH)


def test_a_tree_deeper_than_any_path_is_measured(on_disk: Path) -> None:
    """With os.fwalk() the interpreter's stack ends first, and a payload would have found a place for everything."""
    top = on_disk / "v"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("directory", dir_fd=fd)
        below = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(file, bytes(1 << 20))
    os.close(file)
    os.close(fd)
    assert usage(str(top)) >= 1 << 20
    from rootfs.removal import remove_tree

    parent = os.open(on_disk, os.O_RDONLY)
    remove_tree(parent, "v")
    os.close(parent)
