"""Platforms: what a machine can run, in the order in which it should be preferred.

The rules are those of containerd (github.com/containerd/platforms, Only()), so that an index gives the same image here.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from kernel.errors import BadInput

_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "i386": "386", "i486": "386", "i586": "386", "i686": "386"}
_ALIASES |= {"aarch64": "arm64", "armv8l": "arm64"}
_ARM = {"armhf": "v7", "armel": "v6", "armv7l": "v7", "armv6l": "v6", "armv5tel": "v5"}
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Platform(NamedTuple):
    """Go's names of a system and an architecture (GOOS, GOARCH), and the architecture's variant."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in self if part)

    def normal(self) -> Platform:
        """The one spelling of what has several: x86_64, aarch64, arm64/v8, arm."""
        system, architecture, variant = (part.lower() for part in self)
        if architecture in _ARM:
            return Platform(system, "arm", _ARM[architecture])
        architecture = _ALIASES.get(architecture, architecture)
        if architecture == "386" or (architecture, variant) in {("amd64", "v1"), ("arm64", "8"), ("arm64", "v8")}:
            variant = ""
        elif architecture == "arm":
            variant = variant or "v7"
            variant = "v" + variant if variant.isdigit() else variant
        return Platform(system, architecture, variant)

    def runs(self) -> list[Platform]:
        """What a machine of this platform runs, best first: newer processors run what is made for older ones."""
        system, architecture, variant = wanted = self.normal()
        number = int(variant[1:]) if re.fullmatch(r"v\d", variant) else 0
        if architecture == "amd64":
            older = ["" if version == 1 else f"v{version}" for version in range(number - 1, 0, -1)]
            return [wanted, *(Platform(system, "amd64", version) for version in older), Platform(system, "386")]
        if architecture == "arm":
            return [wanted, *(Platform(system, "arm", f"v{version}") for version in range(number - 1, 4, -1))]
        if architecture == "arm64":
            older = [version for version in _arm64(variant) if version != variant]
            return [
                wanted,
                *(Platform(system, "arm64", version) for version in older),
                *(Platform(system, "arm", f"v{version}") for version in range(8, 4, -1)),
            ]
        return [wanted]


def _arm64(variant: str) -> list[str]:
    """Variants that one of arm64 runs, newest first. Version 9.N has all of 8.(N + 5); v8 itself is written ""."""
    match = re.fullmatch(r"v([89])(?:\.(\d))?", variant or "v8")
    if match is None:
        return [""]
    major, minor = int(match[1]), int(match[2] or 0)
    newest = [f"v9.{number}" if number else "v9" for number in range(minor, -1, -1)] if major == 9 else []
    return [*newest, *(f"v8.{number}" if number else "" for number in range(minor + (5 if newest else 0), -1, -1))]


def here() -> Platform:
    """This machine's."""
    return Platform("linux", os.uname().machine).normal()


def parse_platform(text: str) -> Platform:
    """`OS/ARCHITECTURE[/VARIANT]` as Docker's --platform takes it, an architecture alone of linux. Raises BadInput."""
    parts = text.split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) > 3 or not all(_WORD.fullmatch(part) for part in parts):
        raise BadInput(f"platform {text[:200]!r} is not valid", remedy="OS/ARCHITECTURE[/VARIANT], as linux/arm64")
    return Platform(*parts).normal()
