"""Copies from directory to directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from kernel.errors import Conflict, SystemCallError
from kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from rootfs.copy import copy_contents
from rootfs.copying.items import Item, read_xattrs
from rootfs.copying.kernels import check_ordinary
from rootfs.copying.places import located
from rootfs.copying.receiver import Receiver
from rootfs.copying.walk import Step, open_contents, walk

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_WITHIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_NO_LONGER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EAGAIN)

_Identity = tuple[int, int]


def copy_tree(place: int, name: str, top: int, receiver: Receiver, shown: str) -> None:
    """Copy what `place` (O_PATH) stands for into directory `top` under `name`; with "" what is in it.

    `shown` is the source in errors.
    """
    with located(shown):
        check_ordinary(place)
        check_ordinary(top)
    _TreeCopy(receiver, top).run(place, name, shown)


class _TreeCopy:
    def __init__(self, receiver: Receiver, top: int) -> None:
        self._receiver, self._top = receiver, top
        self._targets: list[int] = []
        self._items: list[Item] = []
        self._links: dict[_Identity, str] = {}
        self._made: _Identity = (-1, -1)

    def run(self, place: int, name: str, shown: str) -> None:
        steps = walk(place, name, shown, self._receiver.note)
        try:
            for step in steps:
                with located(step.path or shown):
                    self._take(step)
        finally:
            steps.close()  # type: ignore[attr-defined]
            for target in self._targets:
                os.close(target)

    def _take(self, step: Step) -> None:
        if step.leaving:
            target, item = self._targets.pop(), self._items.pop()
            try:
                if step.path:  # the directory whose contents alone were asked for stays as it is
                    self._receiver.dress(target, item)
            finally:
                os.close(target)
        elif step.is_directory:
            self._enter(step)
        elif step.status.st_nlink < 2 or not self._linked(step):
            self._file(step)
            if step.status.st_nlink > 1:
                self._links[_identity(step.status)] = step.path

    def _enter(self, step: Step) -> None:
        if _identity(step.status) == self._made:
            raise Conflict("a directory cannot be copied into itself")
        reading = open_contents(step.place)
        try:
            item = Item.of(step.status, read_xattrs(reading))
        finally:
            os.close(reading)
        if step.path:
            target = self._receiver.directory(self._parent(), os.path.basename(step.path))
        else:
            target = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._top)
        if not self._targets:
            self._made = _identity(os.fstat(target))
        self._targets.append(target)
        self._items.append(item)

    def _parent(self) -> int:
        return self._targets[-1] if self._targets else self._top

    def _file(self, step: Step) -> None:
        parent, name, status = self._parent(), os.path.basename(step.path), step.status
        if stat.S_ISLNK(status.st_mode):
            self._receiver.symlink(parent, name, os.readlink("", dir_fd=step.place), Item.of(status))
        elif stat.S_ISREG(status.st_mode):
            reading = open_contents(step.place)
            try:
                item = Item.of(status, read_xattrs(reading))
                self._receiver.file(parent, name, item, _from(reading, status.st_size))
            finally:
                os.close(reading)
            self._receiver.size += status.st_size
        else:
            self._receiver.node(parent, name, Item.of(status))

    def _linked(self, step: Step) -> bool:
        """Whether another name of the file was copied already, and is one of this, too, now."""
        first = self._links.get(_identity(step.status))
        if first is None:
            return False
        try:
            original = openat2(self._top, first, _PLACE, resolve=_WITHIN)
        except SystemCallError as error:
            if error.errno in _NO_LONGER:
                return False
            raise
        try:
            same = stat.S_IFMT(os.fstat(original).st_mode) == stat.S_IFMT(step.status.st_mode)
            return same and self._receiver.link(self._parent(), os.path.basename(step.path), original)
        finally:
            os.close(original)


def _from(reading: int, size: int) -> Callable[[int], None]:
    return lambda writing: copy_contents(reading, writing, size)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
