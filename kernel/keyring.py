"""keyctl(2): a session keyring of the container's own, so that it does not share its starter's keys (keyrings(7))."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_ulong

from kernel.syscalls import SystemCall

KEY_POS_ALL = 0x3F000000
KEY_USR_SEARCH = 0x00080000
KEY_OTH_SEARCH = 0x00000008

_KEYCTL_JOIN_SESSION_KEYRING, _KEYCTL_SETPERM, _KEYCTL_DESCRIBE = 1, 5, 6

_keyctl = SystemCall("keyctl", operation=c_int, arg2=c_ulong, arg3=c_ulong, arg4=c_ulong, arg5=c_ulong)


def join_session_keyring(name: str) -> int:
    """Join the session keyring `name`, made if there is none that the caller may search; its serial number."""
    buffer = ctypes.create_string_buffer(name.encode())
    return _keyctl(_KEYCTL_JOIN_SESSION_KEYRING, ctypes.addressof(buffer), 0, 0, 0)


def key_permissions(serial: int) -> int:
    """The permission mask of a key (keyctl_describe(3)); it may be that of whoever made it, in another namespace."""
    buffer = ctypes.create_string_buffer(4096)
    _keyctl(_KEYCTL_DESCRIBE, serial, ctypes.addressof(buffer), len(buffer), 0)
    # type;uid;gid;permissions;description
    return int(buffer.value.split(b";")[3], 16)


def set_key_permissions(serial: int, permissions: int) -> None:
    """keyctl_setperm(3)."""
    _keyctl(_KEYCTL_SETPERM, serial, permissions, 0, 0)
