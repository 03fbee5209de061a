"""seccomp(2): filters of system calls."""

from __future__ import annotations

import ctypes
from ctypes import c_uint, c_void_p

from kernel.errors import SystemCallError
from kernel.syscalls import SystemCall

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_GET_NOTIF_SIZES = 3

SECCOMP_FILTER_FLAG_TSYNC = 1 << 0
SECCOMP_FILTER_FLAG_LOG = 1 << 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 1 << 4
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5

_INSTRUCTION_SIZE = 8
_EOPNOTSUPP = 95
_EFAULT = 14


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", c_void_p)]


class _Sizes(ctypes.Structure):
    """struct seccomp_notif_sizes."""

    _fields_ = [(name, ctypes.c_uint16) for name in ("notification", "response", "data")]


_seccomp = SystemCall("seccomp", operation=c_uint, flags=c_uint, args=c_void_p)


def set_mode_filter(program: bytes, flags: int = 0) -> int:
    """SECCOMP_SET_MODE_FILTER: from here on this thread's calls are what `program` makes of them.

    `program` is an array of struct sock_filter. Answers the listener's descriptor with
    SECCOMP_FILTER_FLAG_NEW_LISTENER, otherwise 0. Needs no_new_privs or CAP_SYS_ADMIN in the user namespace.
    """
    memory = ctypes.create_string_buffer(program, len(program))
    described = _Program(len(program) // _INSTRUCTION_SIZE, ctypes.addressof(memory))
    return _seccomp(SECCOMP_SET_MODE_FILTER, flags, ctypes.addressof(described))


def action_available(action: int) -> bool:
    """SECCOMP_GET_ACTION_AVAIL: whether the kernel knows a SECCOMP_RET_* action."""
    value = ctypes.c_uint32(action)
    try:
        _seccomp(SECCOMP_GET_ACTION_AVAIL, 0, ctypes.addressof(value))
    except SystemCallError as error:
        if error.errno != _EOPNOTSUPP:
            raise
        return False
    return True


def flag_available(flag: int) -> bool:
    """Whether the kernel knows a SECCOMP_FILTER_FLAG_*. It looks at the flags before the program, which is none."""
    if flag == SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        flag |= SECCOMP_FILTER_FLAG_NEW_LISTENER  # an error without it
    try:
        _seccomp(SECCOMP_SET_MODE_FILTER, flag, None)
    except SystemCallError as error:
        return error.errno == _EFAULT
    return True


def notification_sizes() -> tuple[int, int, int]:
    """SECCOMP_GET_NOTIF_SIZES: bytes of struct seccomp_notif, seccomp_notif_resp and seccomp_data."""
    sizes = _Sizes()
    _seccomp(SECCOMP_GET_NOTIF_SIZES, 0, ctypes.addressof(sizes))
    return sizes.notification, sizes.response, sizes.data
