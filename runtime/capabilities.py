"""From the capabilities that are asked for to those that can be had, with a warning for each that cannot.

config.md, "Linux Process": a capability that the kernel does not know or that cannot be granted is warned of, and is no
reason to fail.
"""

from __future__ import annotations

from kernel.names import CAPABILITIES
from kernel.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime import spec

ALL = 2**64 - 1
"""What the first process of a new user namespace has: also capabilities that are newer than this list."""

_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


class Granted(Record):
    """The five sets as bit masks, in a form that capset(2) and prctl(2) accept (capabilities(7))."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0


def grant(wanted: spec.Capabilities | None, available: int) -> tuple[Granted, list[str]]:
    """The sets to have, and the warnings. `available` is what the caller may keep: its bounding set.

    The kernel's own conditions: effective is part of permitted; ambient is part of permitted and of inheritable;
    inheritable is part of the bounding set.
    """
    if wanted is None:
        return Granted(), []
    warnings: list[str] = []
    asked: dict[str, int] = {}
    for field in _SETS:
        bits = 0
        for name in getattr(wanted, field):
            if name not in CAPABILITIES:
                warnings.append(f"process.capabilities.{field}: unknown capability {name!r} ignored")
            else:
                bits |= 1 << CAPABILITIES[name]
        asked[field] = bits
    bounding = asked["bounding"] & available
    permitted = asked["permitted"] & available
    inheritable = asked["inheritable"] & bounding
    possible = {
        "bounding": available,
        "permitted": available,
        "inheritable": bounding,
        "effective": permitted,
        "ambient": permitted & inheritable,
    }
    granted = {field: asked[field] & possible[field] for field in _SETS}
    for field in _SETS:
        for name, number in CAPABILITIES.items():
            if asked[field] & ~granted[field] & 1 << number:
                warnings.append(
                    f"process.capabilities.{field}: {name} cannot be granted: {_why(field, number, available)}"
                )
    return Granted(**granted), warnings


def _why(field: str, number: int, available: int) -> str:
    if not available >> number & 1:
        return "the runtime's own bounding set lacks it"
    return {
        "inheritable": "not in the bounding set",
        "effective": "not permitted",
        "ambient": "not both permitted and inheritable",
    }[field]
