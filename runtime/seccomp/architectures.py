"""The architectures of system calls: a kernel of one serves the calls of several (seccomp(2), arch)."""

from __future__ import annotations

from kernel.record import Record
from runtime.seccomp.numbers import X32_BIT, numbers


class Architecture(Record):
    """One calling convention of a `machine`'s kernel.

    `token` is its AUDIT_ARCH_*, `wide` whether arguments are compared with all 64 bits.
    Calls of x32 have the token of x86_64 and bit 30 in their numbers, from `first` on (Documentation/x86/x32-abi).
    """

    name: str
    machine: str
    token: int
    wide: bool
    first: int = 0

    @property
    def numbers(self) -> dict[str, int]:
        """Number of each call by its name."""
        return numbers(self.name)


X86_64 = Architecture("x86_64", "x86_64", 0xC000003E, True)
X86 = Architecture("x86", "x86_64", 0x40000003, False)
X32 = Architecture("x32", "x86_64", 0xC000003E, False, X32_BIT)
AARCH64 = Architecture("aarch64", "aarch64", 0xC00000B7, True)
ARM = Architecture("arm", "aarch64", 0x40000028, False)

ARCHITECTURES = {
    "SCMP_ARCH_X86_64": X86_64,
    "SCMP_ARCH_X86": X86,
    "SCMP_ARCH_X32": X32,
    "SCMP_ARCH_AARCH64": AARCH64,
    "SCMP_ARCH_ARM": ARM,
}

_OTHERS = (
    "LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PARISC PARISC64 PPC PPC64 PPC64LE "
    "RISCV64 S390 S390X SH SHEB"
)
FOREIGN = frozenset(f"SCMP_ARCH_{name}" for name in _OTHERS.split())
"""Names that are right and say nothing here: no kernel that rawpod runs on executes calls of these."""

_OF_MACHINE = {"x86_64": X86_64, "aarch64": AARCH64}


def native(machine: str) -> Architecture | None:
    """The architecture of a machine as uname(2) names it; None for one without tables.

    A process with the personality LINUX32 is told "i686" or "armv8l" for the kernel of 64 bits that it runs on.
    """
    name = {"i686": "x86_64", "armv8l": "aarch64"}.get(machine, machine)
    return _OF_MACHINE.get(name)
