"""Directories that containers mount as volumes: empty ones, trees of small files, paths of the host."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from kernel.errors import BadInput, ContainerError, NotFound, SystemCallError
from kernel.mounts import MNT_DETACH, MS_NODEV, MS_NOSUID, UMOUNT_NOFOLLOW, mount, umount2
from kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, mkdir_beneath, openat2
from rootfs.files import new_file
from rootfs.removal import remove_tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# hostPath.type of Kubernetes.
_TYPES: dict[str, Callable[[int], bool]] = {
    "Directory": stat.S_ISDIR,
    "DirectoryOrCreate": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "FileOrCreate": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}


class VolumeFile(NamedTuple):
    """One file of a ConfigMap or Secret: `path` is relative to the volume, without ".."."""

    path: str
    data: bytes
    mode: int = 0o644


def make_empty(path: str | os.PathLike[str], *, group: int | None = None) -> None:
    """An empty directory for anybody to write to. What is there already stays.

    With a `group`, what is made in it belongs to the group, too (inode(7), "The set-group-ID bit").
    """
    _make_directory(path, 0o777)
    if group is not None:
        os.chown(path, -1, group)
        os.chmod(path, 0o2777)  # after chown(2), which may take the bit away


def make_below(volume: str, path: str) -> None:
    """Make directory `path` below `volume` where there is nothing, with the mode and owner of the volume.

    Raises ContainerError if it leads out of the volume, or goes through a file.
    """
    try:
        held = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise ContainerError(f"{volume!r} is not a directory: there is no {path!r} in it") from None
    try:
        status = os.fstat(held)
        mkdir_beneath(held, path, stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid)
    except SystemCallError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise ContainerError(f"{path!r} leads out of {volume!r}, or through a link that dangles") from None
        if error.errno == errno.ENOTDIR:
            raise ContainerError(f"{path!r} in {volume!r} goes through a file") from None
        raise
    finally:
        os.close(held)


def mount_memory(
    path: str | os.PathLike[str], size: int = 0, *, mode: int = 0o777, owner: int = 0, group: int | None = None
) -> None:
    """A tmpfs of at most `size` bytes; 0 is the kernel's half of the memory (tmpfs(5)). All may write by default.

    With a `group` what is made in it belongs to the group, as with `make_empty`.
    """
    _make_directory(path, 0o700)
    mode, group = (mode, owner) if group is None else (mode | stat.S_ISGID, group)
    data = f"mode={mode:o},uid={owner},gid={group}" + (f",size={size}" if size else "")
    mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, data)


def unmount_memory(path: str | os.PathLike[str]) -> None:
    """Take the tmpfs away. It is fine if there is none."""
    try:
        umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)
    except SystemCallError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def write_tree(
    path: str | os.PathLike[str], files: Iterable[VolumeFile], *, owner: int = 0, group: int | None = None
) -> bool:
    """Make directory `path` hold `files`, seen by readers all at once, and nothing else. Whether anything changed.

    As in Kubernetes: the files are in a directory named after the time, `..data` is a link to it, and each file's first
    name is a link through `..data`. A new state is written beside the old one and takes its place by one rename(2).
    Everything goes by descriptor and follows no link, so what a container with write access put there leads nowhere.
    `owner` is the user of all of it, and the group where no other is given.
    Raises BadInput for a path that leaves the volume.
    """
    wanted = [(_volume_path(file.path), file) for file in files]
    ids = owner, owner if group is None else group
    _make_directory(path, 0o755)
    volume = os.open(path, _DIRECTORY)
    try:
        os.fchown(volume, *ids)
        names = {parts[0] for parts, _ in wanted}
        if _holds(volume, wanted, names):
            return False
        state = _new_state(volume)
        directory = os.open(state, _DIRECTORY, dir_fd=volume)
        try:
            os.fchmod(directory, 0o755)
            os.fchown(directory, *ids)
            for parts, file in wanted:
                _write(directory, parts, file, ids)
        finally:
            os.close(directory)
        remove_tree(volume, "..data_tmp")
        _link(volume, "..data_tmp", state, ids)
        os.rename("..data_tmp", "..data", src_dir_fd=volume, dst_dir_fd=volume)
        _link_names(volume, names, state, ids)
    finally:
        os.close(volume)
    return True


def check_host_path(path: str, kind: str) -> None:
    """Check that `path` is what Kubernetes' hostPath.type `kind` says; made if missing for the kinds with OrCreate.

    Raises NotFound if there is nothing, BadInput if it is something else. "" takes anything that is there.
    """
    if kind and kind not in _TYPES:
        raise BadInput(f"hostPath type {kind!r} is unknown", remedy=f"one of {', '.join(_TYPES)}")
    with suppress(FileExistsError):
        if kind == "DirectoryOrCreate":
            os.makedirs(path, 0o755, exist_ok=True)
        elif kind == "FileOrCreate":
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise NotFound(f"host path {path!r}: {reason}", remedy="create it, or use a type with OrCreate") from None
    if kind and not _TYPES[kind](mode):
        raise BadInput(f"host path {path!r} is no {kind.removesuffix('OrCreate')}")


def _make_directory(path: str | os.PathLike[str], mode: int) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(os.fspath(path)), 0o700, exist_ok=True)
        os.mkdir(path, 0o700)
    os.chmod(path, mode)


def _volume_path(path: str) -> list[str]:
    parts = path.split("/")
    if "" in parts or "." in parts or parts[0].startswith("..") or ".." in parts or "\0" in path:
        raise BadInput(f"path {path!r} in a volume is not a relative path without '..'")
    return parts


def _new_state(volume: int) -> str:
    """A directory named after the time, as `date +..%Y_%m_%d_%H_%M_%S.%N` would have it."""
    while True:
        now = time.time_ns()
        name = time.strftime("..%Y_%m_%d_%H_%M_%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}"
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=volume)
            return name


def _holds(volume: int, wanted: list[tuple[list[str], VolumeFile]], names: set[str]) -> bool:
    """Whether `..data` has just these files. What it leads to is never trusted further than to be compared."""
    try:
        if {name for name in os.listdir(volume) if not name.startswith("..")} != names:
            return False
        if any(os.readlink(name, dir_fd=volume) != f"..data/{name}" for name in names):
            return False
        state = openat2(volume, "..data", os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_BENEATH)
    except (OSError, SystemCallError):
        return False
    try:
        if _count(state) != len({file.path for _, file in wanted}):
            return False
        return all(_same(state, file) for _, file in wanted)
    except (OSError, SystemCallError):
        return False
    finally:
        os.close(state)


def _count(directory: int) -> int:
    """The files below, directories without any counting as one."""
    count = 0
    for _, directories, files, _ in os.fwalk(".", dir_fd=directory):
        count += len(files) + (not directories and not files)
    return count


def _same(state: int, file: VolumeFile) -> bool:
    fd = openat2(state, file.path, os.O_RDONLY | os.O_NONBLOCK, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    with os.fdopen(fd, "rb") as opened:
        status = os.fstat(fd)
        return (
            stat.S_ISREG(status.st_mode)
            and stat.S_IMODE(status.st_mode) == file.mode
            and opened.read(len(file.data) + 1) == file.data
        )


def _write(directory: int, parts: list[str], file: VolumeFile, ids: tuple[int, int]) -> None:
    held = os.dup(directory)
    try:
        for name in parts[:-1]:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=held)
                os.chown(name, *ids, dir_fd=held, follow_symlinks=False)
            resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
            below = openat2(held, name, os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
            os.close(held)
            held = below
        with suppress(FileNotFoundError):
            os.unlink(parts[-1], dir_fd=held)
        new_file(held, parts[-1], file.data, mode=file.mode, uid=ids[0], gid=ids[1])
    finally:
        os.close(held)


def _link(volume: int, name: str, target: str, ids: tuple[int, int]) -> None:
    os.symlink(target, name, dir_fd=volume)
    os.chown(name, *ids, dir_fd=volume, follow_symlinks=False)


def _link_names(volume: int, names: set[str], state: str, ids: tuple[int, int]) -> None:
    """Links for the files of now, and none for those of before."""
    for name in names:
        target = f"..data/{name}"
        try:
            if os.readlink(name, dir_fd=volume) == target:
                continue
        except OSError:
            pass
        remove_tree(volume, name)
        _link(volume, name, target, ids)
    for name in os.listdir(volume):
        if name not in names and name not in ("..data", state):
            remove_tree(volume, name)
