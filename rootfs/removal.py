"""Removing directory trees of any depth and size, in bounded memory and with a bounded number of descriptors."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# ioctl_iflags(2)
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_FL, _FS_APPEND_FL = 0x10, 0x20


def remove_tree(parent: int, name: str) -> None:
    """Remove `name`, whatever it is, from directory `parent`. It is fine if it is not there.

    The tree must be at rest and on one filesystem. Directories found in it are moved up beside one another before they
    are emptied, so that neither a stack of names nor of descriptors grows with the depth. A removal that was cut short
    is taken up by the next one.
    """
    try:
        _unlink(parent, name)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError) as error:
        # unlink(2) of a directory: EISDIR on Linux, EPERM as POSIX has it.
        try:
            top = _open(parent, name)
        except OSError:
            raise error from None
        try:
            _empty(top)
        finally:
            os.close(top)
        _rmdir(parent, name)


def _empty(top: int) -> None:
    """Remove everything in directory `top`."""
    count = 0
    while True:
        directories = _unlink_all(top)
        if not directories:
            return
        for name in directories:
            below = _open(top, name)
            try:
                count = _flatten(below, top, count)
            finally:
                os.close(below)
            _rmdir(top, name)


def _flatten(directory: int, top: int, count: int) -> int:
    """Unlink the files of `directory` and move its directories to `top`, under names nobody has; the next number."""
    while directories := _unlink_all(directory):
        for name in directories:
            while True:
                count += 1
                new = f".removing-{count}"
                try:
                    os.stat(new, dir_fd=top, follow_symlinks=False)
                except FileNotFoundError:
                    break
            _move(directory, name, top, new)
    return count


def _unlink_all(directory: int, at_most: int = 1024) -> list[str]:
    """Unlink what is no directory; the names of up to `at_most` directories that remain."""
    found: list[str] = []
    unlinked = True
    # readdir(3) may pass over entries while others are unlinked: go on until there was nothing left to unlink.
    while unlinked and not found:
        unlinked = False
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.name)
                    if len(found) == at_most:
                        break
                else:
                    unlinked = True
                    try:
                        _unlink(directory, entry.name)
                    except FileNotFoundError:
                        pass
    return found


def _unlink(directory: int, name: str) -> None:
    _retry_without_flags(directory, name, lambda: os.unlink(name, dir_fd=directory))


def _rmdir(directory: int, name: str) -> None:
    _retry_without_flags(directory, name, lambda: os.rmdir(name, dir_fd=directory))


def _move(source: int, name: str, target: int, new: str) -> None:
    _retry_without_flags(source, name, lambda: os.rename(name, new, src_dir_fd=source, dst_dir_fd=target))


def _retry_without_flags(directory: int, name: str, action: Callable[[], None]) -> None:
    """Do it; if the kernel forbids it, take chattr(1)'s immutable and append-only flags away and do it again."""
    try:
        action()
    except PermissionError:
        if not any((_clear_flags(directory, "."), _clear_flags(directory, name))):
            raise
        action()


def _clear_flags(directory: int, name: str) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False  # a link or a device has no such flags
    try:
        buffer = fcntl.ioctl(fd, _FS_IOC_GETFLAGS, struct.pack("l", 0))
        flags: int = struct.unpack_from("i", buffer)[0]
        if not flags & (_FS_IMMUTABLE_FL | _FS_APPEND_FL):
            return False
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("l", flags & ~(_FS_IMMUTABLE_FL | _FS_APPEND_FL)))
        return True
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM):
            return False
        raise
    finally:
        os.close(fd)


def _open(directory: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
