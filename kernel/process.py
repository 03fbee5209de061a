"""Processes and namespaces: clone3(2), unshare(2), setns(2), close_range(2)."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_void_p

from kernel import events
from kernel.errors import RawpodError, SystemCallError
from kernel.record import Record
from kernel.syscalls import SystemCall

CLONE_NEWTIME = 0x00000080
CLONE_VFORK = 0x00004000
CLONE_PARENT = 0x00008000
CLONE_PIDFD = 0x00001000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

CLOSE_RANGE_CLOEXEC = 4

_SYS_CLONE3 = 435
_SIGCHLD = 17

# PyDLL keeps the interpreter lock: the child must own it when it comes back into Python.
_PYTHON = ctypes.PyDLL("libc.so.6", use_errno=True)
_clone3 = _PYTHON["syscall"]
_clone3.argtypes = [c_long, c_void_p, c_size_t]
_clone3.restype = c_long

_unshare = SystemCall("unshare", flags=c_int)
_setns = SystemCall("setns", fd=c_int, flags=c_int)
_close_range = SystemCall("close_range", first=c_uint, last=c_uint, flags=c_uint)
_sethostname = SystemCall("sethostname", name=c_char_p, length=c_size_t)
_setdomainname = SystemCall("setdomainname", name=c_char_p, length=c_size_t)


class Child(Record):
    """What clone3 answers: in the child both are 0 and -1, in the parent the child's pid and a pidfd for it."""

    pid: int
    pidfd: int


class _CloneArguments(ctypes.Structure):
    _fields_ = [
        ("flags", c_uint64),
        ("pidfd", c_uint64),
        ("child_tid", c_uint64),
        ("parent_tid", c_uint64),
        ("exit_signal", c_uint64),
        ("stack", c_uint64),
        ("stack_size", c_uint64),
        ("tls", c_uint64),
        ("set_tid", c_uint64),
        ("set_tid_size", c_uint64),
        ("cgroup", c_uint64),
    ]


def clone3(flags: int, *, cgroup_fd: int = -1, exit_signal: int = _SIGCHLD) -> Child:
    """clone3(2) without a new stack, as fork(2) with namespaces: returns twice. A pidfd is always made.

    With `cgroup_fd`, the directory of a v2 cgroup, the child begins its life in that cgroup. Only for a process of
    one thread: another thread could hold a lock that the child then waits for for ever.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise RawpodError("clone3 in a process of several threads")
    pidfd = c_int(-1)
    arguments = _CloneArguments(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal)
    if cgroup_fd >= 0:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _clone3(_SYS_CLONE3, ctypes.addressof(arguments), ctypes.sizeof(arguments))
    errno = ctypes.get_errno()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return Child(0, -1)
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    shown = {"flags": hex(arguments.flags), "cgroup": cgroup_fd}
    if pid < 0:
        events.emit("clone3", shown, None, errno)
        raise SystemCallError("clone3", shown, errno)
    events.emit("clone3", shown, pid)
    return Child(pid, pidfd.value)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _unshare(flags)


def setns(fd: int, flags: int) -> None:
    """setns(2): `fd` is a namespace file, or a pidfd with the CLONE_NEW* of all namespaces to join."""
    _setns(fd, flags)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """close_range(2)."""
    _close_range(first, last, flags)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    data = name.encode()
    _sethostname(data, len(data))


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    data = name.encode()
    _setdomainname(data, len(data))
