"""prlimit(2): resource limits, of another process too."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int, c_uint64

from kernel.syscalls import SystemCall

INFINITY = 2**64 - 1


class _Limit(ctypes.Structure):
    _fields_ = [("soft", c_uint64), ("hard", c_uint64)]


_prlimit = SystemCall("prlimit", pid=c_int, resource=c_int, new=POINTER(_Limit), old=POINTER(_Limit))


def get_rlimit(pid: int, resource: int) -> tuple[int, int]:
    """Soft and hard limit of process `pid`, 0 for the caller; `resource` is one of kernel.names.RLIMITS."""
    limit = _Limit()
    _prlimit(pid, resource, None, limit)
    return limit.soft, limit.hard


def set_rlimit(pid: int, resource: int, soft: int, hard: int) -> None:
    """Set both limits of process `pid`, 0 for the caller. Raising the hard one needs CAP_SYS_RESOURCE."""
    _prlimit(pid, resource, _Limit(soft, hard), None)
