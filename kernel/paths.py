"""openat2(2), and what follows from it: paths that are resolved inside a root, by descriptor, without races."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_uint64, c_ulong

from kernel.errors import SystemCallError
from kernel.syscalls import SystemCall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_EEXIST, _EAGAIN, _ENOENT = 17, 11, 2


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64)]


_openat2 = SystemCall("openat2", dirfd=c_int, path=c_char_p, how=POINTER(_OpenHow), size=c_ulong)


def openat2(dirfd: int, path: str | bytes | os.PathLike[str], flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): RESOLVE_* restrict how `path` is walked. The descriptor is close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return _openat2(dirfd, os.fsencode(path), how, ctypes.sizeof(how))


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as a process with that root would: symbolic links and ".." never leave it, magic links are refused.

    The kernel answers EAGAIN when a rename elsewhere raced with the walk (openat2(2)); the walk is then repeated.
    """
    return _patiently(root_fd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def open_beneath(directory_fd: int, path: str, flags: int) -> int:
    """Open relative `path` below a directory. EXDEV for ".." or a link that leads out of it, absolute ones too."""
    return _patiently(directory_fd, path, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)


def _patiently(fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    for _ in range(64):
        try:
            return openat2(fd, path, flags, mode=mode, resolve=resolve)
        except SystemCallError as error:
            if error.errno != _EAGAIN:
                raise
    return openat2(fd, path, flags, mode=mode, resolve=resolve)


def mkdir_beneath(directory_fd: int, path: str, mode: int, *, uid: int = 0, gid: int = 0) -> None:
    """Make what is missing of relative `path` below a directory, directories of exactly that mode and owner.

    What exists is opened as open_beneath() does; from there on each new directory is made and opened by its
    descriptor, through no link.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    found = len(parts)
    while True:
        try:
            held = open_beneath(directory_fd, "/".join(parts[:found]) or ".", os.O_PATH)
            break
        except SystemCallError as error:
            if error.errno != _ENOENT or not found:
                raise
            found -= 1
    try:
        for name in parts[found:]:
            try:
                os.mkdir(name, 0o700, dir_fd=held)
                new = True
            except FileExistsError:
                new = False
            below = openat2(held, name, os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            os.close(held)
            held = below
            if new:
                os.fchown(held, uid, gid)
                os.fchmod(held, mode)
    finally:
        os.close(held)


def mkdir_in_root(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Make directory `path` and what is missing above it inside the root; an O_PATH descriptor of it.

    Each component is opened by descriptor before the next is made below it, so a link swapped in between
    is either followed inside the root or refused.
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except SystemCallError as error:
        if error.errno != _ENOENT:
            raise
    # ".." behind a component that is still to be made has no meaning yet.
    parent_path, name = os.path.split(os.path.normpath("/" + path))
    if not name:
        return open_in_root(root_fd, "/", os.O_PATH | os.O_DIRECTORY)
    parent = mkdir_in_root(root_fd, parent_path, mode)
    try:
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            # A dangling link or a file: let the open below say which.
            pass
    finally:
        os.close(parent)
    return open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)


def create_file_in_root(root_fd: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of file `path` inside the root, made empty if it is missing, with its directories."""
    try:
        return open_in_root(root_fd, path, os.O_PATH)
    except SystemCallError as error:
        if error.errno != _ENOENT:
            raise
    parent_path, name = os.path.split(os.path.normpath("/" + path))
    parent = mkdir_in_root(root_fd, parent_path)
    try:
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=parent))
        except FileExistsError:
            pass
    finally:
        os.close(parent)
    return open_in_root(root_fd, path, os.O_PATH)
