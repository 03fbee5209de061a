"""Which pod has which ids of the host: 65,536 of them each, in blocks that do not overlap.

A block is leased under its number, below ROOT/ids. That is on disk, as the upper layers are whose files bear these ids:
a block is free when those are gone, and not before, whatever was rebooted meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kernel.errors import HostError
from kernel.leases import Leases
from kernel.record import Record

SIZE = 65536
_LAST = 2**32 // SIZE - 2  # the very last block holds (uid_t) -1


class IdBlocks:
    """The blocks of an instance. Number N begins at id N * 65,536; number 0 is the host's own users."""

    def __init__(self, root: Path, last: int = _LAST) -> None:
        ids = root / "ids"
        self._leases = Leases(ids / "owners", ids / "blocks", ids / "cursor", "block")
        self._last = last

    def acquire(self, uid: str) -> int:
        """The first id of the pod's block: the one it has, or the next free one. Raises HostError when none is left.

        The search goes on after the last block given: what a pod left somewhere on the host under its ids is not the
        next pod's.
        """
        number = self._leases.acquire(uid, self._after)
        if number is None:
            raise HostError("no block of 65,536 user ids is free", remedy="remove pods with hostUsers: false")
        return int(number) * SIZE

    def find(self, uid: str) -> int | None:
        """The first id of the pod's block, if it has one."""
        number = self._leases.find(uid)
        return None if number is None else int(number) * SIZE

    def release(self, uid: str) -> None:
        """Free the pod's block; nothing to do where it has none."""
        self._leases.release(uid)

    def _after(self, last: int) -> Iterator[tuple[int, str]]:
        for step in range(self._last):
            number = 1 + (last + step) % self._last
            yield number, str(number)


class PodRoot(Record):
    """The root user of a pod as the host sees it: the first id of its block, or the host's own root."""

    blocks: IdBlocks | None = None
    uid: str = ""

    def id(self) -> int:
        """Asked for when it is needed: the block is allotted as the pod's other parts are made."""
        return (self.blocks.find(self.uid) or 0) if self.blocks else 0


HOST_ROOT = PodRoot()
