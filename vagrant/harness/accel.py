"""KVM or TCG: KVM where this kernel boots under it, found out once a kernel and image and remembered in the cache."""

import hashlib
import os
from collections.abc import Callable

from harness import cache
from harness.build import Image, say

BOOT_LIMIT = 15.0
"""Seconds a stock kernel gets to reach init under KVM; it takes about one where KVM works."""


def choose(image: Image, boots: Callable[[float], bool]) -> str:
    """ "kvm" or "tcg" for an image on this host; boots(limit) tries KVM."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    # The verdict holds for this host kernel and this guest kernel: either may be what is at fault.
    inputs = "\n".join((os.uname().release, os.uname().version, image.kernel_release, image.path.name))
    verdict = cache.directory() / f"accel-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"
    if not verdict.exists():
        say(f"trying KVM once with kernel {image.kernel_release} (at most {BOOT_LIMIT:g} s)")
        chosen = "kvm" if boots(BOOT_LIMIT) else "tcg"
        cache.remember(verdict, chosen + "\n")
        say(f"this machine runs it with {chosen}; remembered in {str(verdict)!r}")
    return verdict.read_text().strip()
