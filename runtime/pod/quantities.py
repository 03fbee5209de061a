"""Amounts as Kubernetes writes them, and the limits of cgroup v2 that follow from them.

A quantity is a decimal number with a suffix: `m` (thousandths), `k M G T P E` (powers of 1000), `Ki Mi Gi Ti Pi Ei`
(powers of 1024) or an exponent (`1e3`). https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

from kernel.errors import BadInput

MAX_BYTES = 2**63 - 1
MAX_MILLICORES = 10_000_000
CPU_PERIOD_US = 100_000
MIN_QUOTA_US = 1000  # the kernel's own minimum, kernel/sched/core.c: min_cfs_quota_period

_SUFFIXES = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}
# Bounded repetitions: the text comes from outside, and a number of a million digits is no amount of anything.
_QUANTITY = re.compile(r"([+-]?)(\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:([eE][+-]?\d{1,2})|([A-Za-z]{0,2}))\Z", re.ASCII)


def parse(text: str) -> Decimal:
    """The exact value of a quantity; raises BadInput for what is none."""
    found = _QUANTITY.match(text)
    if found is None:
        raise BadInput(f"{_shown(text)} is not a quantity", remedy="a number with a suffix, as 500m, 64Mi or 1.5")
    sign, number, exponent, suffix = found.groups()
    if suffix and suffix not in _SUFFIXES:
        known = ", ".join(name for name in _SUFFIXES if name)
        raise BadInput(f"{_shown(text)} has the unknown unit {suffix!r}", remedy=f"one of {known}")
    value = Decimal(f"{number}{exponent or ''}") * _SUFFIXES[suffix or ""]
    return -value if sign == "-" else value


def cpu_millicores(text: str) -> int:
    """Thousandths of a CPU, rounded up; raises BadInput for zero, negative and absurd amounts."""
    value = parse(text) * 1000
    millicores = int(value.to_integral_value(ROUND_CEILING))
    if not 1 <= millicores <= MAX_MILLICORES:
        raise BadInput(
            f"cpu {_shown(text)} is out of range", remedy="1m to 10000, where 500m is half a CPU and 1 is a whole one"
        )
    return millicores


def memory_bytes(text: str) -> int:
    """Bytes, rounded up; raises BadInput for zero, negative and fractional amounts and what 63 bits do not hold."""
    value = parse(text)
    if text.endswith("m"):
        raise BadInput(f"memory {_shown(text)} is in thousandths of a byte", remedy="for megabytes write 1M, or 1Mi")
    size = int(value.to_integral_value(ROUND_CEILING))
    if not 1 <= size <= MAX_BYTES:
        raise BadInput(f"memory {_shown(text)} is out of range", remedy="1 to 2^63-1 bytes, as 64Mi or 1G")
    return size


def cpu_quota_us(millicores: int) -> int:
    """Microseconds of CPU in each period of CPU_PERIOD_US (cpu.max)."""
    return max(MIN_QUOTA_US, millicores * CPU_PERIOD_US // 1000)


def cpu_shares(millicores: int) -> int:
    """cgroup v1 shares, which the OCI runtime-spec speaks: 1024 for each CPU, from 2 to 262144."""
    return min(262_144, max(2, millicores * 1024 // 1000))


def show_bytes(size: int) -> str:
    """A size in the largest binary unit that shows it exactly, as "64Mi"."""
    for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        unit = int(_SUFFIXES[suffix])
        if size and size % unit == 0:
            return f"{size // unit}{suffix}"
    return str(size)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
