"""Numbers of the system calls, a module an architecture, loaded when a profile needs it.

In `CALLS` a number is that of the call after it; the calls that follow count on from there.
"""

from __future__ import annotations

X32_BIT = 0x40000000

_tables: dict[str, dict[str, int]] = {}


def numbers(name: str) -> dict[str, int]:
    """Number of each system call by its name, for "x86_64", "x86", "x32", "aarch64" or "arm"."""
    if name not in _tables:
        _tables[name] = _read(name)
    return _tables[name]


def _read(name: str) -> dict[str, int]:
    calls: str = __import__(f"runtime.seccomp.numbers.{name}", fromlist=["CALLS"]).CALLS
    table: dict[str, int] = {}
    number = 0
    for word in calls.split():
        if word.isdigit():
            number = int(word)
        else:
            table[word] = number
            number += 1
    return {call: number | X32_BIT for call, number in table.items()} if name == "x32" else table
