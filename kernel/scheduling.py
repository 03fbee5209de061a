"""Who runs when and where: sched_setattr(2), sched_setaffinity(2), ioprio_set(2), set_mempolicy(2), personality(2)."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int, c_int32, c_uint, c_uint32, c_uint64, c_ulong

from kernel.syscalls import SystemCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP = 1, 2

_IOPRIO_CLASS_SHIFT = 13
_WORD = 64


class _Attributes(ctypes.Structure):
    # struct sched_attr up to the fields of Linux 5.3.
    _fields_ = [
        ("size", c_uint32),
        ("policy", c_uint32),
        ("flags", c_uint64),
        ("nice", c_int32),
        ("priority", c_uint32),
        ("runtime", c_uint64),
        ("deadline", c_uint64),
        ("period", c_uint64),
        ("util_min", c_uint32),
        ("util_max", c_uint32),
    ]


_sched_setattr = SystemCall("sched_setattr", pid=c_int, attributes=POINTER(_Attributes), flags=c_uint)
_sched_setaffinity = SystemCall("sched_setaffinity", pid=c_int, size=c_ulong, mask=POINTER(c_uint64))
_ioprio_set = SystemCall("ioprio_set", which=c_int, who=c_int, ioprio=c_int)
_set_mempolicy = SystemCall("set_mempolicy", mode=c_int, nodemask=POINTER(c_uint64), maxnode=c_ulong)
_personality = SystemCall("personality", persona=c_ulong)


def sched_setattr(
    pid: int,
    policy: int,
    *,
    nice: int = 0,
    priority: int = 0,
    flags: int = 0,
    runtime: int = 0,
    deadline: int = 0,
    period: int = 0,
) -> None:
    """sched_setattr(2) of thread `pid`, 0 for the caller; runtime, deadline and period in nanoseconds."""
    attributes = _Attributes(
        size=ctypes.sizeof(_Attributes),
        policy=policy,
        flags=flags,
        nice=nice,
        priority=priority,
        runtime=runtime,
        deadline=deadline,
        period=period,
        util_max=1024,  # SCHED_CAPACITY_SCALE: what a clamp that is asked for without a value amounts to
    )
    _sched_setattr(pid, attributes, 0)


def sched_setaffinity(pid: int, cpus: Iterable[int]) -> None:
    """sched_setaffinity(2) of thread `pid`, 0 for the caller."""
    words = bit_words(cpus)
    _sched_setaffinity(pid, ctypes.sizeof(words), words)


def reset_affinity(pid: int) -> None:
    """Let the thread run wherever its cpuset allows.

    Since Linux 6.2 a mask asked for earlier outlives the move to another cgroup. The kernel cuts a mask with more bits
    than there are processors down to what is allowed.
    """
    words = (c_uint64 * 128)(*([2**64 - 1] * 128))
    _sched_setaffinity(pid, ctypes.sizeof(words), words)


def ioprio_set(which: int, who: int, io_class: int, priority: int) -> None:
    """ioprio_set(2): `which` is IOPRIO_WHO_*, `who` 0 for the caller's own; priority from 0, the highest, to 7."""
    _ioprio_set(which, who, io_class << _IOPRIO_CLASS_SHIFT | priority)


def set_mempolicy(mode: int, nodes: Iterable[int] = ()) -> None:
    """set_mempolicy(2) of the calling thread; `mode` with its MPOL_F_* flags, no nodes for the empty set."""
    words = bit_words(nodes)
    if not any(words):
        _set_mempolicy(mode, None, 0)
    else:
        # The kernel counts one bit less than it is told (mm/mempolicy.c, get_nodes).
        _set_mempolicy(mode, words, len(words) * _WORD + 1)


def personality(persona: int) -> int:
    """personality(2); the answer is the earlier one."""
    return _personality(persona)


def bit_words(numbers: Iterable[int]) -> ctypes.Array[c_uint64]:
    """A bit mask as the kernel takes it, one word at least."""
    bits = 0
    for number in numbers:
        bits |= 1 << number
    count = max(1, -(-bits.bit_length() // _WORD))
    return (c_uint64 * count)(*(bits >> _WORD * index & 2**_WORD - 1 for index in range(count)))
