"""Files written by descriptor, so that they are there whole or not at all."""

from __future__ import annotations

import os
from ctypes import c_int

from kernel.syscalls import SystemCall

_syncfs = SystemCall("syncfs", fd=c_int)

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`: write(2) may take less than it was given."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def new_file(directory: int, name: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
    """Make file `name` in `directory`, a descriptor, with exactly that mode. Raises FileExistsError."""
    fd = os.open(name, _NEW, 0o600, dir_fd=directory)
    try:
        write_all(fd, data)
        if uid or gid:
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def replace_file(directory: int, name: str, data: bytes, *, mode: int = 0o644) -> None:
    """Put file `name` in place of whatever had the name: after a crash it is the old or the new one, whole."""
    temporary = f".{name[:200]}.new"
    try:
        os.unlink(temporary, dir_fd=directory)
    except FileNotFoundError:
        pass
    fd = os.open(temporary, _NEW, 0o600, dir_fd=directory)
    try:
        write_all(fd, data)
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def sync_filesystem(fd: int) -> None:
    """syncfs(2): everything on the filesystem of `fd` is on disk."""
    _syncfs(fd)
