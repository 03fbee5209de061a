"""What is wrong with a document: each fault has a place, what is wrong there and what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from kernel.errors import BadInput
from kernel.record import Record

Path = tuple[str | int, ...]
"""Where a value is in a document: names of fields and indices of lists."""

SHOWN_AT_MOST = 500


class Fault(Record):
    """One fault; file and line are known where the document came from a file (line 0 is none)."""

    path: Path
    wrong: str
    right: str = ""
    file: str = ""
    line: int = 0

    @property
    def field(self) -> str:
        """The path as Kubernetes writes it, "spec.containers[0].image"."""
        return show_path(self.path)

    @property
    def message(self) -> str:
        """What is wrong and what would be right, without the place."""
        return f"{self.wrong} ({self.right})" if self.right else self.wrong

    def at(self, file: str, line: int) -> Fault:
        """The same fault with its place in a file."""
        return self.replace(file=file, line=line)

    def __str__(self) -> str:
        """`file:line: field.path: what is wrong (what would be right)`, without what is not known."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.field, self.message) if part)


class Faults(BadInput):
    """All faults of a set of documents, one a line; nothing of the set was applied."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        lines = [str(fault) for fault in self.faults[:SHOWN_AT_MOST]]
        if hidden := len(self.faults) - len(lines):
            lines.append(f"and {hidden} more faults")
        super().__init__("\n".join(lines))


def show_path(path: Path) -> str:
    """Dots between names, indices and unusual names in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,60}", part):
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]"
    return text


def shown(value: object, limit: int = 60) -> str:
    """A value quoted on one line, cut where it is long."""
    text = str(value)
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean "x"` for the nearest of the known names, else the list of them; "" when there are none."""
    names = sorted(known)
    folded = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name[:60].lower(), folded, n=1, cutoff=0.7)
    if close:
        return f"did you mean {folded[close[0]]!r}"
    return f"one of {', '.join(names)}" if names else ""
