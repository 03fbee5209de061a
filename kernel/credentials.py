"""Capabilities and process attributes: capget(2), capset(2), prctl(2)."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int, c_ulong

from kernel.errors import SystemCallError
from kernel.names import CAPABILITIES
from kernel.record import Record
from kernel.syscalls import SystemCall

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
_PR_GET_SECUREBITS, _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 27, 28, 1 << 2
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4

_CAPABILITY_VERSION_3 = 0x20080522
_EINVAL = 22


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", c_int)]


class _Data(ctypes.Structure):
    _fields_ = [("words", ctypes.c_uint32 * 6)]


_prctl = SystemCall("prctl", option=c_int, arg2=c_ulong, arg3=c_ulong, arg4=c_ulong, arg5=c_ulong)
_capget = SystemCall("capget", header=POINTER(_Header), data=POINTER(_Data))
_capset = SystemCall("capset", header=POINTER(_Header), data=POINTER(_Data))
_setfsuid = SystemCall("setfsuid", uid=ctypes.c_uint)
_setfsgid = SystemCall("setfsgid", gid=ctypes.c_uint)


class CapabilitySets(Record):
    """A thread's three sets, as bit masks (capabilities(7))."""

    effective: int
    permitted: int
    inheritable: int


def mask(names: list[str] | tuple[str, ...]) -> int:
    """The bit mask of the named capabilities. KeyError for an unknown name."""
    result = 0
    for name in names:
        result |= 1 << CAPABILITIES[name]
    return result


def names(bits: int) -> list[str]:
    """The names in a bit mask."""
    return [name for name, number in CAPABILITIES.items() if bits >> number & 1]


def capget() -> CapabilitySets:
    """capget(2) of this thread."""
    header, data = _Header(_CAPABILITY_VERSION_3, 0), _Data()
    _capget(header, data)
    low_high = list(data.words)
    return CapabilitySets(*(low_high[i] | low_high[i + 3] << 32 for i in range(3)))


def capset(sets: CapabilitySets) -> None:
    """capset(2) of this thread."""
    header, data = _Header(_CAPABILITY_VERSION_3, 0), _Data()
    for index, bits in enumerate(sets):
        data.words[index] = bits & 0xFFFFFFFF
        data.words[index + 3] = bits >> 32
    _capset(header, data)


def bounding_set() -> int:
    """The bounding set as a bit mask, asked capability by capability up to the kernel's last."""
    bits = 0
    for number in range(64):
        try:
            bits |= _prctl(PR_CAPBSET_READ, number, 0, 0, 0) << number
        except SystemCallError as error:
            if error.errno != _EINVAL:
                raise
            break
    return bits


def drop_bounding(keep: int, present: int) -> None:
    """Drop from the bounding set what is in `present` and not in `keep`; beyond the kernel's last there is nothing."""
    for number in range(64):
        if present >> number & 1 and not keep >> number & 1:
            try:
                _prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
            except SystemCallError as error:
                if error.errno != _EINVAL:
                    raise
                return


def clear_ambient() -> None:
    """Empty the ambient set."""
    _prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def raise_ambient(bits: int) -> None:
    """Add to the ambient set; each must be permitted and inheritable already."""
    for number in range(64):
        if bits >> number & 1:
            _prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)


def set_keep_capabilities(keep: bool) -> None:
    """PR_SET_KEEPCAPS: whether permitted capabilities outlive the change from uid 0 to another."""
    _prctl(PR_SET_KEEPCAPS, int(keep), 0, 0, 0)


def set_no_new_privs() -> None:
    """PR_SET_NO_NEW_PRIVS: execve never grants more; cannot be taken back."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_dumpable(dumpable: bool) -> None:
    """PR_SET_DUMPABLE: off, /proc/PID belongs to root and nobody less privileged may ptrace."""
    _prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def set_parent_death_signal(signum: int) -> None:
    """PR_SET_PDEATHSIG: the signal to get when the parent thread ends; 0 for none."""
    _prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)


def set_child_subreaper(reaper: bool = True) -> None:
    """PR_SET_CHILD_SUBREAPER: orphaned descendants become this process's children."""
    _prctl(PR_SET_CHILD_SUBREAPER, int(reaper), 0, 0, 0)


def set_name(name: str) -> None:
    """PR_SET_NAME: what ps(1) shows, 15 bytes at most."""
    buffer = ctypes.create_string_buffer(name.encode()[:15], 16)
    _prctl(PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0)


def set_file_owner(uid: int, gid: int) -> None:
    """Make files as another user from now on, with the capabilities that this thread has (setfsuid(2)).

    Through an id-mapped mount only a user whom it maps can make any (mount_setattr(2), EOVERFLOW).
    """
    # Or the change from uid 0 would take the capabilities about files away (capabilities(7), SECBIT_NO_SETUID_FIXUP).
    _prctl(_PR_SET_SECUREBITS, _prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0) | _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    _setfsgid(gid)
    _setfsuid(uid)
