"""Classic BPF as seccomp(2) runs it: an interpreter, so that a filter's verdict can be asked for without a kernel."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Call(NamedTuple):
    """struct seccomp_data, without the instruction pointer."""

    arch: int
    number: int
    args: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0)


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    jt: int
    jf: int
    k: int


def disassembled(program: bytes) -> list[Instruction]:
    """The program's instructions."""
    return [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program)]


def verdict(program: bytes | list[Instruction], call: Call) -> int:
    """What the program answers. Refuses what the kernel's checker refuses: jumps back or out, other instructions."""
    instructions = disassembled(program) if isinstance(program, bytes) else program
    data = struct.pack("<IIQ6Q", call.number, call.arch, 0, *call.args)
    accumulator = place = 0
    while True:
        code, jt, jf, k = instructions[place]
        place += 1
        if code == 0x06:
            return k
        if code == 0x20:
            assert k % 4 == 0 and k < 64
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            place += k
        elif code == 0x15:
            place += jt if accumulator == k else jf
        elif code == 0x25:
            place += jt if accumulator > k else jf
        elif code == 0x35:
            place += jt if accumulator >= k else jf
        elif code == 0x45:
            place += jt if accumulator & k else jf
        else:
            raise AssertionError(f"instruction {place - 1}: code {code:#x}")


def check(program: bytes) -> None:
    """What the kernel checks before it takes a program (bpf_check_classic, seccomp_check_filter)."""
    instructions = disassembled(program)
    assert 0 < len(instructions) <= 4096
    for place, (code, jt, jf, k) in enumerate(instructions):
        after = place + 1
        assert code in (0x06, 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45), f"{place}: {code:#x}"
        if code == 0x05:
            assert after + k < len(instructions)
        elif code & 0x07 == 0x05:
            assert after + max(jt, jf) < len(instructions)
    assert instructions[-1].code == 0x06
