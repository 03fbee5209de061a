"""Which pod has which ids of the host: 65,536 of them each, in blocks that do not overlap.

A block is one inode with two names, `owners/UID` and `blocks/NUMBER`, below ROOT/ids. link(2) makes the second name
only where it is free, so no block is given twice, and a process killed at any step leaves either no block or one that
is found by the pod's uid. The names are on disk, as the upper layers are whose files bear these ids: a block is free
when those are gone, and not before, whatever was rebooted meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel.errors import HostError
from kernel.record import Record

SIZE = 65536
_LAST = 2**32 // SIZE - 2  # the very last block holds (uid_t) -1


class IdBlocks:
    """The blocks of an instance. Number N begins at id N * 65,536; number 0 is the host's own users."""

    def __init__(self, root: Path, last: int = _LAST) -> None:
        self._owners, self._blocks, self._cursor = root / "ids/owners", root / "ids/blocks", root / "ids/cursor"
        self._last = last

    def acquire(self, uid: str) -> int:
        """The first id of the pod's block: the one it has, or the next free one. Raises HostError when none is left.

        The search goes on after the last block given, so that one just freed rests for as long as possible: what a
        pod left somewhere on the host under its ids is not the next pod's.
        """
        with self._locked() as cursor:
            number = self._number_of(uid)
            if number is None:
                owner = self._owners / uid
                owner.write_text(f"{uid}\n")
                number = self._link_next(owner, _read_number(cursor))
                os.pwrite(cursor, b"%010d\n" % number, 0)
        return number * SIZE

    def find(self, uid: str) -> int | None:
        """The first id of the pod's block, if it has one."""
        number = self._number_of(uid)
        return None if number is None else number * SIZE

    def release(self, uid: str) -> None:
        """Free the pod's block; nothing to do where it has none."""
        owner = self._owners / uid
        if not owner.exists():
            return
        with self._locked():
            number = self._number_of(uid)
            if number is not None:
                (self._blocks / str(number)).unlink(missing_ok=True)
            owner.unlink(missing_ok=True)

    def _number_of(self, uid: str) -> int | None:
        try:
            inode = (self._owners / uid).stat()
        except FileNotFoundError:
            return None
        if inode.st_nlink < 2:
            return None
        with os.scandir(self._blocks) as entries:
            return next((int(entry.name) for entry in entries if entry.inode() == inode.st_ino), None)

    def _link_next(self, owner: Path, last: int) -> int:
        taken = frozenset(os.listdir(self._blocks))
        for step in range(self._last):
            number = 1 + (last + step) % self._last
            if str(number) not in taken:
                os.link(owner, self._blocks / str(number))
                return number
        owner.unlink()
        raise HostError("no block of 65,536 user ids is free", remedy="remove pods with hostUsers: false")

    @contextmanager
    def _locked(self) -> Iterator[int]:
        for directory in (self._blocks, self._owners):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._cursor, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)


class PodRoot(Record):
    """The root user of a pod as the host sees it: the first id of its block, or the host's own root."""

    blocks: IdBlocks | None = None
    uid: str = ""

    def id(self) -> int:
        """Asked for when it is needed: the block is allotted as the pod's other parts are made."""
        return (self.blocks.find(self.uid) or 0) if self.blocks else 0


HOST_ROOT = PodRoot()


def _read_number(fd: int) -> int:
    text = os.pread(fd, 16, 0).strip()
    return int(text) if text.isdigit() else 0
