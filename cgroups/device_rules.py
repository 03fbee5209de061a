"""Device rules as in the OCI runtime-spec, and the BPF_PROG_TYPE_CGROUP_DEVICE program that they become. Pure.

For each access that is asked for (r, w, m) the last rule that matches decides, and one that no rule names is denied; a
request is allowed if every access in it is. So rules mean the same in any combination, also where the older device
controller, and runc after it, refuse a hole in a wildcard or overlook a part of a request.
"""

from __future__ import annotations

import struct

from kernel.errors import BadInput
from kernel.record import Record

TYPE_CHECKING = False  # `typing` is not loaded at run time; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Iterable

# enum in include/uapi/linux/bpf.h, struct bpf_cgroup_dev_ctx
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_EVERY_ACCESS = 7
_UINT32 = 2**32 - 1

# Registers: r1 is the context, r0 the answer; the others are ours.
_ANSWER, _CONTEXT, _TYPE, _ASKED, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5
# Codes (Documentation/bpf/standardization/instruction-set.rst); comparisons of 32 bits, as numbers of devices have.
_LOAD_WORD = 0x61
_MOVE, _AND, _SHIFT_RIGHT = 0xB4, 0x54, 0x74
_JUMP_ALWAYS, _JUMP_IF_ANY, _JUMP_IF_NOT_EQUAL = 0x05, 0x46, 0x56
_EXIT = 0x95


class Rule(Record):
    """One entry: `kind` "c", "b" or "a" for both, numbers or None for all, `access` of r, w and m."""

    allow: bool
    kind: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    def __str__(self) -> str:
        major, minor = ("*" if number is None else number for number in (self.major, self.minor))
        return f"{'allow' if self.allow else 'deny'} {self.kind} {major}:{minor} {self.access}"

    @property
    def everything(self) -> bool:
        """Whether it decides every request, so that rules before it do not matter."""
        return self.kind == "a" and self.major is None and self.minor is None and _mask(self.access) == _EVERY_ACCESS


DENY_ALL = Rule(False)

STANDARD = tuple(
    Rule(True, "c", major, minor)
    for major, minor in (
        *((1, 3), (1, 5), (1, 7), (1, 8), (1, 9)),  # null zero full random urandom
        *((5, 0), (5, 1), (5, 2)),  # tty console ptmx
        (136, None),  # pseudoterminals
    )
)
"""What every container may use: the devices it is given, its terminals."""

OCI = (Rule(True, "c", access="m"), Rule(True, "b", access="m"), *STANDARD, Rule(True, "c", 10, 200))
"""What runc and crun append to the rules of a description, so that callers count on it: also nodes of any device (which
still cannot be opened), and tun."""


def compile_rules(rules: Iterable[Rule]) -> bytes:
    """The program, 8 bytes an instruction. Raises BadInput for a rule that is none. Pure."""
    program = [
        _instruction(_LOAD_WORD, _ASKED, source=_CONTEXT, offset=0),
        _instruction(_LOAD_WORD, _TYPE, source=_CONTEXT, offset=0),
        _instruction(_AND, _TYPE, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _ASKED, value=16),
        _instruction(_LOAD_WORD, _MAJOR, source=_CONTEXT, offset=4),
        _instruction(_LOAD_WORD, _MINOR, source=_CONTEXT, offset=8),
    ]
    # From the last rule back: what one allows need not be asked of those before it, and is taken out of r3.
    for rule in reversed([_checked(rule) for rule in rules]):
        if rule.everything:
            return b"".join([*program, *_answer(rule.allow)])
        program += _compile_rule(rule)
    return b"".join([*program, *_answer(False)])


def _checked(rule: Rule) -> Rule:
    if rule.kind not in ("a", "b", "c"):
        raise BadInput(f"device rule {rule}: {rule.kind!r} is none of a, b and c")
    if not rule.access or not set(rule.access) <= _ACCESS.keys():
        raise BadInput(f"device rule {rule}: {rule.access!r} is not made of r, w and m")
    for number in (rule.major, rule.minor):
        if number is not None and not 0 <= number <= _UINT32:
            raise BadInput(f"device rule {rule}: {number} is not the number of a device")
    return rule


def _mask(access: str) -> int:
    mask = 0
    for letter in access:
        mask |= _ACCESS[letter]
    return mask


def _compile_rule(rule: Rule) -> list[bytes]:
    """Decide, or fall through to what follows."""
    mask = _mask(rule.access)
    if rule.allow:
        decision = [
            _instruction(_AND, _ASKED, value=~mask & 0xFFFF),
            _instruction(_JUMP_IF_NOT_EQUAL, _ASKED, offset=2, value=0),
            *_answer(True),
        ]
    else:
        decision = [
            _instruction(_JUMP_IF_ANY, _ASKED, offset=1, value=mask),
            _instruction(_JUMP_ALWAYS, 0, offset=2),
            *_answer(False),
        ]
    wanted = [(_MINOR, rule.minor), (_MAJOR, rule.major), (_TYPE, _TYPES.get(rule.kind))]
    for register, number in wanted:
        if number is not None:
            decision.insert(0, _instruction(_JUMP_IF_NOT_EQUAL, register, offset=len(decision), value=number))
    return decision


def _answer(allow: bool) -> list[bytes]:
    return [_instruction(_MOVE, _ANSWER, value=int(allow)), _instruction(_EXIT, 0)]


def _instruction(code: int, register: int, *, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhI", code, source << 4 | register, offset, value)
