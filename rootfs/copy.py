"""Copies of directory trees, by descriptor, without following a link."""

from __future__ import annotations

import errno
import os
import stat

from rootfs.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


def copy_tree(source: int, target: int, *, itself: bool = True) -> None:
    """Copy what is in directory `source` into directory `target`, with owners, modes and times.

    Both are descriptors and may be O_PATH. Files, directories and links are copied; sockets, FIFOs and devices have no
    contents to copy and are left out. With `itself` owner, mode and times of the directory are taken over, too.
    """
    reading = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    try:
        with os.scandir(reading) as entries:
            for entry in entries:
                _copy_entry(reading, target, entry.name)
        if not itself:
            return
        writing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
        try:
            _copy_metadata(os.fstat(reading), writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_entry(source: int, target: int, name: str) -> None:
    mode = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    elif stat.S_ISDIR(mode):
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
            try:
                copy_tree(below, made)
            finally:
                os.close(made)
        finally:
            os.close(below)
    elif stat.S_ISREG(mode):
        copy_file(source, name, target, name)


def copy_file(source: int, name: str, target: int, new_name: str) -> None:
    """Copy the regular file `name` of directory `source` to the new file `new_name` in directory `target`."""
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        status = os.fstat(reading)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, "not a regular file", name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(new_name, flags, 0o600, dir_fd=target)
        try:
            copy_contents(reading, writing, status.st_size)
            _copy_metadata(status, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def copy_contents(reading: int, writing: int, size: int) -> None:
    """Copy the first `size` bytes of one regular file to another, which is empty; holes stay holes.

    What is appended meanwhile is left out, and what is cut off meanwhile is missing.
    """
    for start, end in data_ranges(reading, size):
        os.lseek(reading, start, os.SEEK_SET)
        os.lseek(writing, start, os.SEEK_SET)
        left = end - start
        while left and (data := os.read(reading, min(_CHUNK, left))):
            write_all(writing, data)
            left -= len(data)
        if left:
            break
    os.ftruncate(writing, min(size, os.fstat(reading).st_size))


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the first `size` bytes of a file are no hole: from and to (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            raise
        if start >= size:
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end


def _copy_metadata(status: os.stat_result, target: int) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
