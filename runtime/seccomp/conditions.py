"""What a rule asks of a system call's arguments, as instructions.

A condition is a tuple (index, op, value, value_two) as in the specification. The filter loads words of 32 bits, so an
argument of 64 is looked at as its upper and its lower half. A calling convention of 32 bits has no upper half.
"""

from __future__ import annotations

from runtime.seccomp.assembler import EQUAL, Assembler
from runtime.seccomp.ranges import Ranges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

    Condition = tuple[int, str, int, int]
    Rule = tuple[int, tuple[Condition, ...]]

NE, LT, LE, EQ = "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ"
GE, GT, MASKED_EQ = "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"
OPERATORS = (NE, LT, LE, EQ, GE, GT, MASKED_EQ)

_ARGUMENTS = 16  # offset of args[0] in struct seccomp_data; the architectures here are all little-endian
_LOW = 0xFFFFFFFF


def decide(assembler: Assembler, rules: list[Rule], otherwise: int, wide: bool) -> int:
    """The label where `rules`, each a verdict and its conditions, are tried in order, and `otherwise` holds last."""
    label = assembler.returns(otherwise)
    end = len(rules)
    while end:
        first = end - 1
        index = _only_range(rules[first])
        if index < 0:
            label = _all_of(assembler, rules[first], label, wide)
        else:
            # Neighbours that look at the same argument alone become one search.
            while first and _only_range(rules[first - 1]) == index:
                first -= 1
            label = _any_of(assembler, index, rules[first:end], label, wide)
        end = first
    return label


def _only_range(rule: Rule) -> int:
    """The argument that the rule is about, -1 where there are several or some of its bits."""
    conditions = rule[1]
    return conditions[0][0] if len(conditions) == 1 and conditions[0][1] != MASKED_EQ else -1


def _all_of(assembler: Assembler, rule: Rule, no: int, wide: bool) -> int:
    verdict, conditions = rule
    label = assembler.returns(verdict)
    for condition in reversed(conditions):
        index, op, mask, value = condition
        if op == MASKED_EQ:
            label = _masked(assembler, index, mask, value, label, no, wide)
        else:
            ranges = _cut([(0, (condition,))], wide)
            label = _find(assembler, index, ranges, {0: label, None: no}, wide)
    return label


def _any_of(assembler: Assembler, index: int, rules: list[Rule], otherwise: int, wide: bool) -> int:
    labels: dict[Hashable, int] = {verdict: assembler.returns(verdict) for verdict, _ in rules}
    labels[None] = otherwise
    return _find(assembler, index, _cut(rules, wide), labels, wide)


def _masked(assembler: Assembler, index: int, mask: int, value: int, yes: int, no: int, wide: bool) -> int:
    label = yes
    for half in (0, 1) if wide else (0,):
        bits = mask >> 32 * half & _LOW
        if bits:
            # Bits of the value outside the mask do not count, as with libseccomp.
            label = assembler.jump(EQUAL, value >> 32 * half & bits, label, no)
            if bits != _LOW:
                label = assembler.and_(bits, label)
            label = assembler.load(_ARGUMENTS + 8 * index + 4 * half, label)
    return label


def _cut(rules: list[Rule], wide: bool) -> list[tuple[int, int | None]]:
    """Where what becomes of an argument changes: from each start on the first rule's verdict that holds, or None."""
    limit = 2**64 if wide else 2**32
    tests = [(verdict, op, value % limit) for verdict, ((_, op, value, _),) in rules]
    starts = {0}
    for _, op, value in tests:
        if op not in (LE, GT):
            starts.add(value)
        if op not in (LT, GE) and value + 1 < limit:
            starts.add(value + 1)
    return [
        (start, next((verdict for verdict, op, value in tests if _holds(op, start, value)), None))
        for start in sorted(starts)
    ]


def _holds(op: str, argument: int, value: int) -> bool:
    if op == EQ:
        return argument == value
    if op == NE:
        return argument != value
    if op == LT:
        return argument < value
    if op == LE:
        return argument <= value
    return argument >= value if op == GE else argument > value


def _find(
    assembler: Assembler, index: int, cut: list[tuple[int, int | None]], labels: dict[Hashable, int], wide: bool
) -> int:
    """A search for the argument: for its upper half, and where that does not decide, for its lower half."""
    offset = _ARGUMENTS + 8 * index
    if not wide:
        low = Ranges()
        for start, leaf in cut:
            low.add(start, leaf)
        return _search(assembler, offset, low, labels)
    high, lows = Ranges(), dict[int, Ranges]()
    leaf = None
    for start, following in cut:
        upper, lower = start >> 32, start & _LOW
        if lower:
            if upper not in lows:
                lows[upper] = Ranges()
                lows[upper].add(0, leaf)
                high.add(upper, ("lower half", upper))
            lows[upper].add(lower, following)
            if upper < _LOW:
                high.add(upper + 1, following)
        else:
            high.add(upper, following)
        leaf = following
    for upper, low in lows.items():
        labels["lower half", upper] = _search(assembler, offset, low, labels)
    return _search(assembler, offset + 4, high, labels)


def _search(assembler: Assembler, offset: int, ranges: Ranges, labels: dict[Hashable, int]) -> int:
    label = ranges.search(assembler, labels.__getitem__)
    return label if len(ranges.starts) == 1 else assembler.load(offset, label)
