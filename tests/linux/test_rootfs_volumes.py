"""Volumes: directories that are empty, in memory, of the host, or hold small files."""

import os
import re
from pathlib import Path

import pytest

from kernel.errors import BadInput, NotFound
from rootfs.volumes import (
    VolumeFile,
    check_host_path,
    make_empty,
    mount_memory,
    unmount_memory,
    write_tree,
)
from tests.rootfs_lab import tree


def test_an_empty_directory_is_open_to_all_and_kept(tmp_path: Path) -> None:
    make_empty(tmp_path / "v/data")
    assert (tmp_path / "v/data").stat().st_mode & 0o7777 == 0o777
    (tmp_path / "v/data/file").touch()
    make_empty(tmp_path / "v/data")
    assert (tmp_path / "v/data/file").exists()


def test_memory_has_its_size_and_goes_away(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    mount_memory(volume, 1 << 20)
    assert os.statvfs(volume).f_blocks * os.statvfs(volume).f_frsize == 1 << 20
    assert volume.stat().st_mode & 0o7777 == 0o777
    unmount_memory(volume)
    unmount_memory(volume)
    assert not volume.is_mount()
    unmount_memory(tmp_path / "missing")


def test_files_with_their_modes(tmp_path: Path) -> None:
    write_tree(tmp_path / "v", [VolumeFile("a", b"1"), VolumeFile("dir/b", b"2", 0o400)])
    assert (tmp_path / "v/a").read_bytes() == b"1"
    assert (tmp_path / "v/dir/b").read_bytes() == b"2"
    assert (tmp_path / "v/a").stat().st_mode & 0o7777 == 0o644
    assert (tmp_path / "v/dir/b").stat().st_mode & 0o7777 == 0o400
    assert (tmp_path / "v").stat().st_mode & 0o7777 == 0o755


def test_a_new_state_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write_tree(tmp_path, [VolumeFile("a", b"1"), VolumeFile("gone", b"x")])
    held = os.open(tmp_path / "..data/a", os.O_RDONLY)
    write_tree(tmp_path, [VolumeFile("a", b"2"), VolumeFile("new/b", b"3")])
    assert os.read(held, 10) == b"1"
    os.close(held)
    state = os.readlink(tmp_path / "..data")
    assert re.fullmatch(r"\.\.\d{4}(_\d\d){5}\.\d{9}", state)
    assert sorted(os.listdir(tmp_path)) == [state, "..data", "a", "new"]
    assert (tmp_path / "a").read_bytes() == b"2"
    assert (tmp_path / "new/b").read_bytes() == b"3"


def test_a_state_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    files = [VolumeFile("a", b"1"), VolumeFile("dir/b", b"2", 0o400)]
    assert write_tree(tmp_path, files)
    before = tree(tmp_path)
    assert not write_tree(tmp_path, files)
    assert tree(tmp_path) == before
    for other in (files[:1], [*files, VolumeFile("c", b"")], [files[0], VolumeFile("dir/b", b"2", 0o440)]):
        assert write_tree(tmp_path, other)


def test_nothing_is_written_through_what_a_container_left(tmp_path: Path) -> None:
    """CVE-2025-9566. Checked by writing to volume / path by name."""
    outside, volume = tmp_path / "outside", tmp_path / "v"
    outside.mkdir()
    (outside / "a").write_text("untouched")
    write_tree(volume, [VolumeFile("a", b"1")])
    (volume / "a").unlink()
    (volume / "a").symlink_to(outside / "a")
    (volume / "..data").unlink()
    (volume / "..data").symlink_to(outside)
    (volume / "dir").symlink_to(outside)
    before = tree(outside)
    write_tree(volume, [VolumeFile("a", b"2"), VolumeFile("dir/a", b"3")])
    assert tree(outside) == before
    assert (volume / "a").read_bytes() == b"2"
    assert (volume / "dir/a").read_bytes() == b"3"


@pytest.mark.parametrize("path", ["../a", "a/../b", "/a", "", ".", "a//b", "..data", "..5/a", "a\0b"])
def test_paths_that_are_not_in_the_volume(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadInput):
        write_tree(tmp_path, [VolumeFile(path, b"")])
    assert os.listdir(tmp_path) == []


def test_host_paths_by_type(tmp_path: Path) -> None:
    check_host_path(str(tmp_path / "d/e"), "DirectoryOrCreate")
    check_host_path(str(tmp_path / "d/e"), "Directory")
    check_host_path(str(tmp_path / "file"), "FileOrCreate")
    check_host_path(str(tmp_path / "file"), "File")
    check_host_path("/dev/null", "CharDevice")
    check_host_path("/dev/null", "")
    for path, kind in (("/dev/null", "File"), (str(tmp_path), "Socket"), ("/dev/null", "BlockDevice")):
        with pytest.raises(BadInput, match=path):
            check_host_path(path, kind)
    with pytest.raises(NotFound, match="no such file"):
        check_host_path(str(tmp_path / "missing"), "")
    with pytest.raises(BadInput, match="one of"):
        check_host_path("/dev/null", "Chardevice")
