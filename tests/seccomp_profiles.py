"""Random seccomp profiles and calls, and what the profile says of a call, read from the rules one by one."""

from __future__ import annotations

from random import Random

from runtime import spec
from runtime.seccomp import rules
from runtime.seccomp.architectures import ARCHITECTURES
from tests.bpf import Call

ACTIONS = tuple(rules.ACTIONS)
# With and without numbers on each architecture, muxed on i386, ARM's own, at both ends of the tables, and unknown ones.
NAMES = (
    *("read", "write", "close", "getpid", "clone", "personality", "openat", "accept", "accept4", "socket", "send"),
    *("shmget", "semop", "ipc", "socketcall", "open", "stat", "fstatat64", "set_tls", "cacheflush", "io_uring_setup"),
    *("restart_syscall", "clone3", "faccessat2", "no_such_call"),
)
VALUES = (0, 1, 2, 5, 0x7E020000, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 5 << 32, 2**63, 2**64 - 2, 2**64 - 1)
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")

ERRNOS = (None, 1, 38, 97, 4095)


def value(random: Random) -> int:
    """A number of 64 bits, rather one where something changes."""
    return random.choice(VALUES) if random.random() < 0.7 else random.getrandbits(random.choice((4, 16, 32, 64)))


def group(random: Random) -> spec.SeccompSyscall:
    """An entry of `syscalls`."""
    action = random.choice(ACTIONS)
    indices = [random.choice((0, 0, 1, 1, 2, 3, 4, 5)) for _ in range(random.choice((0, 0, 1, 1, 1, 2, 3)))]
    return spec.SeccompSyscall(
        names=random.sample(NAMES, random.randint(1, 4)),
        action=action,
        errno_ret=random.choice(ERRNOS) if action in rules.WITH_ERRNO else None,
        args=[
            spec.SeccompArg(index, value(random), f"SCMP_CMP_{random.choice(OPERATORS)}", value(random))
            for index in indices
        ],
    )


def profile(random: Random, architectures: tuple[str, ...] = tuple(ARCHITECTURES)) -> spec.Seccomp:
    """A profile without faults."""
    default = random.choice([action for action in ACTIONS if action != "SCMP_ACT_NOTIFY"])
    return spec.Seccomp(
        default_action=default,
        default_errno_ret=random.choice(ERRNOS) if default in rules.WITH_ERRNO else None,
        architectures=random.sample(architectures, random.randint(0, len(architectures))),
        syscalls=[group(random) for _ in range(random.randint(0, 8))],
    )


def call(random: Random, wanted: spec.Seccomp) -> Call:
    """A call near to what the profile speaks of."""
    name = random.choice(list(ARCHITECTURES))
    architecture = ARCHITECTURES[name]
    spoken_of = [name for entry in wanted.syscalls for name in entry.names if name in architecture.numbers]
    if spoken_of and random.random() < 0.7:
        number = architecture.numbers[random.choice(spoken_of)]
    elif random.random() < 0.8:
        number = architecture.first + random.randrange(480)
    else:
        number = random.choice((0x3FFFFFFF, 0x40000000, 0xF0000, 0xF0006, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF))
    near = [arg.value for entry in wanted.syscalls for arg in entry.args]
    near += [arg.value_two for entry in wanted.syscalls for arg in entry.args] + [0]
    bits = 64 if architecture.wide or name == "SCMP_ARCH_X32" else 32  # registers
    args = [
        (random.choice(near) + random.choice((-1, 0, 0, 0, 1)) if random.random() < 0.6 else value(random)) % 2**bits
        for _ in range(6)
    ]
    return Call(architecture.token, number, (args[0], args[1], args[2], args[3], args[4], args[5]))


def holds(arg: spec.SeccompArg, call: Call, wide: bool) -> bool:
    """Whether a condition is met."""
    limit = 2**64 if wide else 2**32
    given, value, two = call.args[arg.index] % limit, arg.value % limit, arg.value_two % limit
    return {
        "SCMP_CMP_NE": given != value,
        "SCMP_CMP_LT": given < value,
        "SCMP_CMP_LE": given <= value,
        "SCMP_CMP_EQ": given == value,
        "SCMP_CMP_GE": given >= value,
        "SCMP_CMP_GT": given > value,
        "SCMP_CMP_MASKED_EQ": given & value == two & value,
    }[arg.op]


def met(entry: spec.SeccompSyscall, call: Call, wide: bool) -> bool:
    """Whether a entry's conditions are met: all of them, or any where two are about the same argument."""
    results = [holds(arg, call, wide) for arg in entry.args]
    return any(results) if len({arg.index for arg in entry.args}) < len(results) else all(results)


def matching(wanted: spec.Seccomp, name: str, call: Call, wide: bool) -> list[int]:
    """Verdicts of the rules that match a call of that name, in their order; an unconditional one stands alone."""
    default = rules.verdict(wanted.default_action, wanted.default_errno_ret)
    found = []
    for entry in wanted.syscalls:
        verdict = rules.verdict(entry.action, entry.errno_ret)
        if name in entry.names:
            if not entry.args and verdict != default:
                return [verdict]
            if entry.args and met(entry, call, wide):
                found.append(verdict)
    for entry in wanted.syscalls:
        verdict = rules.verdict(entry.action, entry.errno_ret)
        if name in entry.names and not entry.args and verdict != default:
            return [verdict]
    return found
