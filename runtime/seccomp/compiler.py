"""From a seccomp profile to the program that the kernel runs at every system call. Pure; the kernel loads it.

The program looks at the architecture, then searches the number among ranges of numbers with the same answer, then at
arguments where rules have conditions. It is looked up in a cache by the profile's content: a monitor that starts a
container for the hundredth time compiles nothing.
"""

from __future__ import annotations

from kernel.errors import BadInput, NotSupported
from kernel.record import Record
from runtime.seccomp import architectures
from runtime.seccomp.assembler import EQUAL, SIZE, Assembler
from runtime.seccomp.conditions import decide
from runtime.seccomp.ranges import Ranges
from runtime.seccomp.rules import ERRNO_ENOSYS, KILL_THREAD, Rules, is_errno, refuses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    from runtime import spec
    from runtime.seccomp.architectures import Architecture

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_FIRST_OF_ARM = 0xF0000
_CACHED = 64

# linux/seccomp.h, SECCOMP_FILTER_FLAG_*
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
_TSYNC, _NEW_LISTENER, _TSYNC_ESRCH, _WAIT_KILLABLE_RECV = 1 << 0, 1 << 3, 1 << 4, 1 << 5

WATCHED = ("capset", "execve", "fcntl", "ioctl", "recvmsg", "sendmsg")
"""What a runtime may have to do itself with the filter in force."""


class Filter(Record):
    """What seccomp(2) is given: an array of struct sock_filter and SECCOMP_FILTER_FLAG_*.

    `notifies` tells that calls are passed to a listener, whose descriptor seccomp(2) then returns. `refused` are those
    of WATCHED that get an errno whatever their arguments.
    """

    program: bytes
    flags: int
    notifies: bool
    refused: frozenset[str] = frozenset()

    @property
    def length(self) -> int:
        """Instructions."""
        return len(self.program) // SIZE


_cache: dict[Hashable, Filter] = {}


def compiled(profile: spec.Seccomp, machine: str) -> Filter:
    """The filter for a profile without faults, on a machine as uname(2) names it.

    Raises NotSupported for a machine without tables of numbers, BadInput for a profile that is too long for the kernel.
    """
    key = (machine, _content(profile))
    found = _cache.get(key)
    if found is None:
        if len(_cache) >= _CACHED:
            _cache.clear()
        found = _cache[key] = compile_profile(profile, machine)
    return found


def compile_profile(profile: spec.Seccomp, machine: str) -> Filter:
    """As `compiled`, without the cache."""
    native = architectures.native(machine)
    if native is None:
        raise NotSupported(f"linux.seccomp: no table of system calls for {machine!r} (x86_64 and aarch64 have one)")
    chosen = {native.name: native}
    for name in profile.architectures:
        architecture = architectures.ARCHITECTURES.get(name)
        # The kernel of one machine serves no calls of another: rules for them would only make the program longer.
        if architecture is not None and architecture.machine == native.machine:
            chosen.setdefault(architecture.name, architecture)
    rules = [(architecture, Rules(profile, architecture)) for architecture in chosen.values()]
    assembler = Assembler()
    sections: dict[int, int] = {}
    for token in reversed(dict.fromkeys(architecture.token for architecture in chosen.values())):
        sharing = [(one, found) for one, found in rules if one.token == token]
        sections[token] = assembler.load(_NUMBER, _search(assembler, _ranges(sharing)))
    label = assembler.returns(KILL_THREAD)
    for token, section in sections.items():
        label = assembler.jump(EQUAL, token, section, label)
    assembler.load(_ARCHITECTURE, label)
    if len(assembler) > MAX_INSTRUCTIONS:
        raise BadInput(
            f"linux.seccomp: {len(assembler)} instructions, of which the kernel takes {MAX_INSTRUCTIONS}",
            remedy="fewer rules with conditions, or fewer architectures",
        )
    return _filter(profile, assembler.program(), _refused(native, rules[0][1]))


def _refused(native: Architecture, rules: Rules) -> frozenset[str]:
    numbers = {name: native.numbers[name] for name in WATCHED}
    return frozenset(
        name
        for name, number in numbers.items()
        if number not in rules.conditional and is_errno(rules.plain.get(number, rules.default))
    )


def _content(profile: spec.Seccomp) -> Hashable:
    groups = [
        (
            tuple(group.names),
            group.action,
            group.errno_ret,
            tuple([(arg.index, arg.op, arg.value, arg.value_two) for arg in group.args]),
        )
        for group in profile.syscalls
    ]
    plain = (profile.default_action, profile.default_errno_ret)
    return (*plain, tuple(profile.architectures), tuple(profile.flags), tuple(groups))


def _filter(profile: spec.Seccomp, program: bytes, refused: frozenset[str]) -> Filter:
    notifies = any(group.action == "SCMP_ACT_NOTIFY" for group in profile.syscalls)
    flags = 0
    for name in profile.flags:
        flags |= FLAGS[name]
    if notifies:
        flags |= _NEW_LISTENER
        if flags & _TSYNC:
            flags |= _TSYNC_ESRCH  # both answer with a number: seccomp(2) wants to be told which is meant
    else:
        flags &= ~_WAIT_KILLABLE_RECV  # says how a listener is waited for, and is an error where there is none
    return Filter(program, flags, notifies, refused)


def _ranges(sharing: list[tuple[Architecture, Rules]]) -> Ranges:
    """What becomes of every number that comes with a token which these architectures share."""
    ranges = Ranges()
    known = dict(sharing)
    if architectures.X32 in known and architectures.X86_64 not in known:
        ranges.add(0, KILL_THREAD)
    for architecture, rules in sorted(sharing, key=lambda one: one[0].first):
        _add(ranges, rules, architecture)
    if architectures.X86_64 in known and architectures.X32 not in known:
        ranges.add(architectures.X32.first, KILL_THREAD)
        # -1 is not of x32: it is what a tracer leaves for a call that is to be skipped.
        ranges.add(0xFFFFFFFF, known[architectures.X86_64].default)
    return ranges


def _add(ranges: Ranges, rules: Rules, architecture: Architecture) -> None:
    """Append what becomes of the architecture's calls, from its first number on."""
    known = sorted(rules.plain.keys() | rules.conditional.keys())
    own_of_arm = [number for number in known if number & _FIRST_OF_ARM]
    after = _add_numbers(ranges, rules, known[: len(known) - len(own_of_arm)], architecture.first, architecture.wide)
    ranges.add(after, rules.default)
    newer = refuses(rules.default) and rules.default != ERRNO_ENOSYS and rules.last >= 0
    if newer:
        ranges.add(rules.last + 1, ERRNO_ENOSYS)
    if architecture is architectures.ARM:
        ranges.add(_FIRST_OF_ARM, rules.default)
        after = _add_numbers(ranges, rules, own_of_arm, _FIRST_OF_ARM, architecture.wide)
        ranges.add(after, rules.default)


def _add_numbers(ranges: Ranges, rules: Rules, numbers: list[int], position: int, wide: bool) -> int:
    plain, default = rules.plain, rules.default
    for number in numbers:
        if number > position:
            ranges.add(position, default)
        leaf = plain.get(number)
        ranges.add(number, (rules.conditional[number], default, wide) if leaf is None else leaf)
        position = number + 1
    return position


def _search(assembler: Assembler, ranges: Ranges) -> int:
    def label(leaf: Any) -> int:
        if isinstance(leaf, int):
            return assembler.returns(leaf)
        rules, default, wide = leaf
        return decide(assembler, rules, default, wide)

    return ranges.search(assembler, label)
