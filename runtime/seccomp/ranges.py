"""Numbers of 32 bits cut into ranges, each with what becomes of it, and the binary search that finds one."""

from __future__ import annotations

from runtime.seccomp.assembler import AT_LEAST, EQUAL, Assembler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Ranges:
    """Ranges in ascending order from 0 on: `leaves[i]` holds from `starts[i]` up to the next start."""

    __slots__ = ("leaves", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.leaves: list[Any] = []

    def add(self, start: int, leaf: Any) -> None:
        """What holds from `start` on, which is not below the last one."""
        if self.starts and self.starts[-1] == start:
            self.starts.pop()
            self.leaves.pop()
        if not self.leaves or self.leaves[-1] != leaf:
            self.starts.append(start)
            self.leaves.append(leaf)

    def search(self, assembler: Assembler, label: Callable[[Any], int]) -> int:
        """The label of a search for the word that is loaded; `label` makes the code of a leaf."""
        starts, leaves = self.starts, self.leaves

        def between(first: int, end: int) -> int:
            count = end - first
            if count == 1:
                return label(leaves[first])
            if count == 3 and starts[first + 1] + 1 == starts[first + 2] and leaves[first] == leaves[first + 2]:
                around = label(leaves[first])
                return assembler.jump(EQUAL, starts[first + 1], label(leaves[first + 1]), around)
            middle = first + (count // 2 if count < 6 else count // 6 * 3)  # leaves threes whole
            above = between(middle, end)
            return assembler.jump(AT_LEAST, starts[middle], above, between(first, middle))

        return between(0, len(starts))
