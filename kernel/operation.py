"""A plan is data: operations that can be described, executed and undone.

The list is built first and run afterwards. Rollback, narration and stepping read the same list.
"""

from __future__ import annotations

from kernel.errors import RawpodError
from kernel.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Assembly:
    """What operations hand on to one another while a container is put together.

    `root` is a descriptor of the new root directory, -1 until there is one; `fds` are further descriptors by name. The
    new process begins with those of its parent, under the same names. `pid` is the new process, as its parent sees it
    (0 before there is one). `ask` in the new process has the parent execute the operations of that name, and waits.
    """

    __slots__ = ("ask", "fds", "pid", "root")

    def __init__(self, ask: Callable[[str], None] | None = None) -> None:
        self.root = -1
        self.fds: dict[str, int] = {}
        self.pid = 0
        self.ask = ask


class Operation(Record):
    """One step. Subclasses are records: data that says all that execute() will do."""

    def describe(self) -> str:
        """The step in the kernel's words: "bind /srv -> /data [ro]"."""
        raise NotImplementedError

    def execute(self, assembly: Assembly) -> None:
        """Do it."""
        raise NotImplementedError

    def undo(self, assembly: Assembly) -> None:
        """Take back what it left outside the process. Must hold when the step had been done in part or not at all."""


class Undo:
    """The operations that were executed; `undo()` takes them back in reverse, `disarm()` lets them stand."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._done: list[Operation] = []

    def execute(self, operation: Operation) -> None:
        """Execute one more operation, which from now on is undone with the rest."""
        # Before, not after: a step that failed half way may have left something.
        self._done.append(operation)
        operation.execute(self._assembly)

    def undo(self) -> list[RawpodError | OSError]:
        """Take everything back, newest first. One failure does not stop the others; all are returned."""
        failures: list[RawpodError | OSError] = []
        while self._done:
            try:
                self._done.pop().undo(self._assembly)
            except (RawpodError, OSError) as error:
                failures.append(error)
        return failures

    def disarm(self) -> None:
        """Keep what was done."""
        self._done.clear()


def run(operations: Iterable[Operation], assembly: Assembly) -> Undo:
    """Execute in order. If one fails, those before it and itself are undone in reverse and its error is raised."""
    undo = Undo(assembly)
    try:
        for operation in operations:
            undo.execute(operation)
    except BaseException:
        undo.undo()
        raise
    return undo
