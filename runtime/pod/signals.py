"""Signals as people and images write them."""

from __future__ import annotations

import re
import signal

from kernel.errors import BadInput

_REALTIME = re.compile(r"RT(MIN|MAX)(?:([+-])([0-9]{1,2}))?")


def signal_number(text: str) -> int:
    """The number of a signal given by name, with or without SIG, as RTMIN+3, or by number. Raises BadInput."""
    if text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) < signal.NSIG:
        return int(text)
    name = text.upper().removeprefix("SIG")
    if found := _REALTIME.fullmatch(name):
        # Those of signal(7) as the C library counts them: it keeps the first two for itself.
        first = signal.SIGRTMIN if found[1] == "MIN" else signal.SIGRTMAX
        number = first + (int(found[3]) if found[2] == "+" else -int(found[3] or 0))
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    elif hasattr(signal.Signals, "SIG" + name):
        return int(signal.Signals["SIG" + name])
    raise BadInput(f"unknown signal {text[:60]!r}", remedy="a name as TERM or RTMIN+3, or a number from 1 to 64")
