"""The way through a source, by descriptor: what is listed in a directory that is held open is opened in it alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kernel.errors import ContainerError
from rootfs.copying.kernels import kernel_filesystem
from rootfs.copying.places import located

DEPTH_MAX = 2048
"""Directories within directories; a path of PATH_MAX bytes has no more."""

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Step(NamedTuple):
    """A file on the way: `path` from the top, `place` an O_PATH descriptor that is good until the next step.

    A directory is met twice: `leaving` when all that is in it has been.
    """

    path: str
    place: int
    status: os.stat_result
    leaving: bool = False

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


class _Level:
    __slots__ = ("directory", "names", "path", "status")

    def __init__(self, directory: int, status: os.stat_result, path: str) -> None:
        self.directory, self.status, self.path = directory, status, path
        self.names = iter(os.listdir(directory))


def walk(place: int, name: str, shown: str, note: Callable[[str], None]) -> Iterator[Step]:
    """Every file from `place` on, depth first. `name` is what the first one is called in paths, "" for no name at all.

    With a stack of levels, since directories may lie deeper within one another than Python recurses. Files of the
    kernel and sockets are left out, and `note` is told. `shown` begins the paths in errors.
    """
    status = os.fstat(place)
    yield Step(name, place, status)
    if not stat.S_ISDIR(status.st_mode):
        return
    levels: list[_Level] = []
    try:
        with located(shown):
            levels.append(_Level(open_contents(place), status, name))
        while levels:
            level = levels[-1]
            entry = next(level.names, None)
            if entry is None:
                yield Step(level.path, level.directory, level.status, leaving=True)
                os.close(levels.pop().directory)
                continue
            path = f"{level.path}/{entry}" if level.path else entry
            with located(path):
                below = _open(level.directory, entry, note)
            if below < 0:
                continue
            try:
                status = os.fstat(below)
                yield Step(path, below, status)
                if stat.S_ISDIR(status.st_mode):
                    with located(path):
                        if len(levels) == DEPTH_MAX:
                            raise ContainerError(f"directories lie more than {DEPTH_MAX} deep in one another")
                        levels.append(_Level(open_contents(below), status, path))
            finally:
                os.close(below)
    finally:
        for level in levels:
            os.close(level.directory)


def open_contents(place: int) -> int:
    """A descriptor to read the file or directory that `place` (O_PATH) stands for, whatever has its name by now."""
    return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)


def _open(directory: int, name: str, note: Callable[[str], None]) -> int:
    """An O_PATH descriptor of `name`, -1 for what is left out, or went away meanwhile."""
    try:
        place = os.open(name, _PLACE, dir_fd=directory)
    except FileNotFoundError:
        return -1
    kind = kernel_filesystem(place)
    if not kind and not stat.S_ISSOCK(os.fstat(place).st_mode):
        return place
    note(f"left out what is on a {kind} file system" if kind else "left out a socket")
    os.close(place)
    return -1
