"""How long it takes to make the default seccomp filter, and how long the filter is, beside libseccomp's.

.venv/bin/python -m bench.seccomp_build [TIMES]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

from bench import lab
from runtime import spec
from runtime.pod.compile import DEFAULT_CAPABILITIES
from runtime.seccomp import compiler
from runtime.seccomp.architectures import ARCHITECTURES
from runtime.seccomp.assembler import SIZE
from runtime.seccomp.default import default_profile
from tests import libseccomp


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    print(lab.machine())
    machine = os.uname().machine
    profile = default_profile(DEFAULT_CAPABILITIES)
    own = [name for name in profile.architectures if ARCHITECTURES[name].machine == machine]
    # libseccomp makes a section for every architecture that is listed.
    same = spec.Seccomp(profile.default_action, profile.default_errno_ret, own, syscalls=profile.syscalls)
    print(f"{sum(len(group.names) for group in profile.syscalls)} names, {len(own)} architectures")
    ours = compiler.compile_profile(profile, machine)
    theirs = libseccomp.direct(same)
    compiler.compiled(profile, machine)
    show("rawpod", ours.length, measure(lambda: compiler.compile_profile(profile, machine), times))
    show("rawpod, from its cache", ours.length, measure(lambda: compiler.compiled(profile, machine), times))
    show("libseccomp", len(theirs) // SIZE, measure(lambda: libseccomp.direct(same), times))


def measure(work: Callable[[], object], times: int) -> list[float]:
    """Seconds of each run."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found


def show(name: str, length: int, times: list[float]) -> None:
    """A line: instructions, median and shortest time."""
    median, least = statistics.median(times) * 1e3, min(times) * 1e3
    print(f"{name:24} {length:5} instructions  p50 {median:8.3f} ms  min {least:8.3f} ms")


if __name__ == "__main__":
    main()
