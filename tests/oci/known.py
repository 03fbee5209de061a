"""Where runtimes are known to differ from the specification, or from what this suite asks of a command line.

known/NAME.txt has the rows of the runtime NAME: a reason, and below it, indented, tests by their function's name or as
one of its cases. "(before 1.9)" and "(since 1.9)" after a reason limit a row to some versions. A test that is named
there must fail, unless it fails "(sometimes)": one that has come to pass is reported, so that its row is taken out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.oci.runtime import Runtime

_TABLES = Path(__file__).parent / "known"
_LIMIT = re.compile(
    r"(?P<reason>.*?)(?: \((?P<which>before|since) (?P<version>[\d.]+)\))?(?P<sometimes> \(sometimes\))?"
)

LEAVES_CGROUPS = ("runc", "crun")
"""A create of these that fails may leave its cgroup: theirs are taken away after a test without a word."""


@dataclass
class Row:
    """What a runtime fails, and why; `which` versions ("before", "since", or all) it is about."""

    reason: str
    which: str | None
    version: tuple[int, ...]
    always: bool
    tests: list[str] = field(default_factory=list)

    def concerns(self, version: tuple[int, ...]) -> bool:
        return self.which is None or (version < self.version) == (self.which == "before")


def rows(runtime: Runtime) -> list[Row]:
    """The table of a runtime; none for one that is not known."""
    table = _TABLES / f"{runtime.name}.txt"
    found: list[Row] = []
    for line in table.read_text().splitlines() if table.exists() else ():
        if line.startswith("    "):
            found[-1].tests.append(line.strip())
            continue
        match = _LIMIT.fullmatch(line)
        assert match, line
        version = tuple(map(int, (match["version"] or "0").split(".")))
        found.append(Row(match["reason"], match["which"], version, match["sometimes"] is None))
    return found


def row_for(table: list[Row], version: tuple[int, ...], case: str, function: str) -> Row | None:
    """The row by which a runtime is known to fail a test, or None."""
    for row in table:
        if row.concerns(version) and {case, function} & set(row.tests):
            return row
    return None
