"""Classic BPF as seccomp(2) takes it, written from its end to its beginning: what is jumped to is there already.

A label is an instruction's place counted from the end. Jumps lead forward only, conditional ones over 255
instructions at most (BPF(4), linux/filter.h).
"""

from __future__ import annotations

import struct

# linux/bpf_common.h: class, size or source, mode or operation.
LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K
JUMP = 0x05  # BPF_JMP | BPF_JA
EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K

_FURTHEST = 255
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter

SIZE = _INSTRUCTION.size
"""Bytes of one instruction."""


class Assembler:
    """A program under construction."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._code)

    def returns(self, value: int) -> int:
        """Where the filter answers `value`."""
        label = self._returns.get(value)
        if label is None:
            label = self._returns[value] = self._add(RETURN, value)
        return label

    def load(self, offset: int, then: int) -> int:
        """Load the word at `offset` of struct seccomp_data, go on at `then`."""
        return self._before(LOAD_WORD, offset, then)

    def and_(self, mask: int, then: int) -> int:
        """Keep the bits in `mask`, go on at `then`."""
        return self._before(AND, mask, then)

    def jump(self, operation: int, value: int, yes: int, no: int) -> int:
        """Compare what is loaded with `value`."""
        code = self._code
        if yes == no:
            return yes
        # A stepping stone for one target moves the other one further away.
        while len(code) - yes > _FURTHEST or len(code) - no > _FURTHEST:
            if len(code) - yes > _FURTHEST:
                yes = self._stone(yes)
            else:
                no = self._stone(no)
        here = len(code)
        code.append((operation, here - yes - 1, here - no - 1, value))
        return here

    def program(self) -> bytes:
        """All of it, as an array of struct sock_filter."""
        pack = _INSTRUCTION.pack
        return b"".join([pack(*instruction) for instruction in reversed(self._code)])

    def _add(self, operation: int, value: int) -> int:
        self._code.append((operation, 0, 0, value))
        return len(self._code) - 1

    def _before(self, operation: int, value: int, then: int) -> int:
        if then != len(self._code) - 1:
            self._stone(then)
        return self._add(operation, value)

    def _stone(self, target: int) -> int:
        """From here to `target`, however far it is; where that is an answer, the answer itself."""
        operation, _, _, value = self._code[target]
        if operation == RETURN:
            label = self._returns[value] = self._add(RETURN, value)
            return label
        return self._add(JUMP, len(self._code) - target - 1)
