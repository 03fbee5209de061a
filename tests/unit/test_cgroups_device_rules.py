"""Device rules: the program they become, run by an interpreter here, decides as a plain reading of the rules does."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cgroups.device_rules import DENY_ALL, OCI, STANDARD, Rule, compile_rules
from kernel.errors import BadInput

KINDS = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}
INSTRUCTION = struct.Struct("<BBhI")


def verdict_of_program(program: bytes, kind: str, major: int, minor: int, access: str) -> int:
    """Execute the program on one request, with a context as the kernel passes it (struct bpf_cgroup_dev_ctx)."""
    asked = sum(ACCESS[letter] for letter in access)
    context = struct.pack("=III", asked << 16 | KINDS[kind], major, minor)
    code = [INSTRUCTION.unpack_from(program, at) for at in range(0, len(program), INSTRUCTION.size)]
    registers: list[int | None] = [None] * 11
    at = 0
    while True:
        opcode, operands, offset, value = code[at]
        target = operands & 15
        at += 1
        held = registers[target]
        if opcode == 0x95:
            assert registers[0] is not None
            return registers[0]
        if opcode == 0x61:
            assert operands >> 4 == 1, "only the context is memory"
            registers[target] = struct.unpack_from("=I", context, offset)[0]
        elif opcode == 0xB4:
            registers[target] = value
        elif opcode == 0x05:
            at += offset
        else:
            assert held is not None, "read before it is written"
            match opcode:
                case 0x54:
                    registers[target] = held & value
                case 0x74:
                    registers[target] = held >> value
                case 0x46:
                    at += offset if held & value else 0
                case 0x56:
                    at += offset if held != value else 0
                case _:
                    raise AssertionError(f"opcode {opcode:#x}")


def verdict_of_rules(rules: list[Rule], kind: str, major: int, minor: int, access: str) -> bool:
    """For each access the last rule that matches; none denies."""

    def allowed(letter: str) -> bool:
        matching = [
            rule.allow
            for rule in rules
            if letter in rule.access
            and rule.kind in ("a", kind)
            and rule.major in (None, major)
            and rule.minor in (None, minor)
        ]
        return matching[-1] if matching else False

    return all(allowed(letter) for letter in access)


# Few numbers, so that rules and requests meet; the largest, which is negative as a signed one.
numbers = st.sampled_from([0, 1, 3, 136, 2**31, 2**32 - 1])
accesses = st.lists(st.sampled_from("rwm"), min_size=1, max_size=3, unique=True).map("".join)
device_rules = st.builds(
    Rule, st.booleans(), st.sampled_from("abc"), st.none() | numbers, st.none() | numbers, accesses
)


@given(st.lists(device_rules, max_size=8), st.sampled_from("bc"), numbers, numbers, accesses)
@example([Rule(True, "c", 1, 3, "r"), Rule(True, "c", 1, 3, "w")], "c", 1, 3, "rw")
@example([Rule(True), Rule(False, "c", 1, 3, "w")], "c", 1, 3, "rw")
def test_the_program_decides_as_the_rules_read(
    rules: list[Rule], kind: str, major: int, minor: int, access: str
) -> None:
    answer = verdict_of_program(compile_rules(rules), kind, major, minor, access)
    assert answer in (0, 1)
    assert bool(answer) == verdict_of_rules(rules, kind, major, minor, access)


def test_without_a_rule_everything_is_denied() -> None:
    assert verdict_of_program(compile_rules([]), "c", 1, 3, "r") == 0


def test_an_access_the_compiler_does_not_know_is_denied_by_rules_for_the_others() -> None:
    program = compile_rules([Rule(True, "c", 1, 3)])
    assert verdict_of_program(program, "c", 1, 3, "rwm") == 1
    ACCESS["?"] = 8
    try:
        assert verdict_of_program(program, "c", 1, 3, "r?") == 0
    finally:
        del ACCESS["?"]


def test_rules_before_one_that_decides_everything_cost_nothing() -> None:
    many = [Rule(True, "c", number) for number in range(100)]
    assert compile_rules([*many, DENY_ALL]) == compile_rules([DENY_ALL])


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "standard", "oci"),
    [
        ("c", 1, 3, "rwm", True, True),  # null
        ("c", 5, 2, "rw", True, True),  # ptmx
        ("c", 136, 77, "rw", True, True),  # a pseudoterminal
        ("c", 1, 1, "r", False, False),  # mem
        ("b", 8, 0, "r", False, False),
        ("b", 8, 0, "m", False, True),  # a node may be made, and not be opened
        ("c", 10, 200, "rw", False, True),  # tun
        ("c", 10, 229, "rw", False, False),  # fuse
    ],
)
def test_the_defaults(kind: str, major: int, minor: int, access: str, standard: bool, oci: bool) -> None:
    assert bool(verdict_of_program(compile_rules([DENY_ALL, *STANDARD]), kind, major, minor, access)) is standard
    assert bool(verdict_of_program(compile_rules([DENY_ALL, *OCI]), kind, major, minor, access)) is oci


@pytest.mark.parametrize(
    "rule",
    [Rule(True, "p"), Rule(True, access=""), Rule(True, access="rx"), Rule(True, "c", -1), Rule(True, "c", 2**32)],
)
def test_what_is_no_rule_is_refused(rule: Rule) -> None:
    with pytest.raises(BadInput, match="device rule allow"):
        compile_rules([rule])


def test_a_rule_is_shown_as_the_older_device_controller_wrote_it() -> None:
    assert str(Rule(True, "c", 136, None, "rw")) == "allow c 136:* rw"
