"""inotify(7): be told of changes in a directory instead of looking again and again."""

from __future__ import annotations

import os
import struct
from ctypes import c_char_p, c_int, c_uint

from kernel.record import Record
from kernel.syscalls import SystemCall

IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_Q_OVERFLOW = 0x4000
IN_ONLYDIR = 0x01000000

_HEADER = struct.Struct("iIII")

_inotify_init1 = SystemCall("inotify_init1", flags=c_int)
_inotify_add_watch = SystemCall("inotify_add_watch", fd=c_int, path=c_char_p, mask=c_uint)


class Change(Record):
    """One inotify_event: the watch, what happened (IN_*), and the name within the watched directory."""

    watch: int
    mask: int
    name: str


def inotify_init1(*, blocking: bool = True) -> int:
    """inotify_init1(2); the descriptor is close-on-exec."""
    return _inotify_init1(os.O_CLOEXEC | (0 if blocking else os.O_NONBLOCK))


def inotify_add_watch(fd: int, path: str | os.PathLike[str], mask: int) -> int:
    """inotify_add_watch(2): the watch's number."""
    return _inotify_add_watch(fd, os.fsencode(path), mask)


def read_changes(fd: int) -> list[Change]:
    """What happened since the last read; on a non-blocking descriptor an empty list for nothing."""
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return []
    changes, at = [], 0
    while at < len(data):
        watch, mask, _, length = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        changes.append(Change(watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))))
        at += length
    return changes
