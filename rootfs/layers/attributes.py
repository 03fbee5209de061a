"""What a packed member carries of its extended attributes, and owners of a container with users of its own."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootfs.idmap import IdMaps, Ranges

Fail = Callable[[str], Exception]

_OVERLAY = "trusted.overlay."
_OPAQUE = _OVERLAY + "opaque"
_CAPABILITY = "security.capability"

# linux/capability.h: the third revision ends with the id of the root that it holds for.
_REVISION_MASK, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000


class Shift:
    """Turns the ids that a mapped container's files have on disk into those that it sees itself."""

    def __init__(self, maps: IdMaps) -> None:
        self._maps = maps

    def owner(self, uid: int, gid: int, fail: Fail) -> tuple[int, int]:
        """What the container sees. Raises what `fail` makes for ids that it has no name for."""
        return _inside(self._maps.uids, uid, "user", fail), _inside(self._maps.gids, gid, "group", fail)

    def capability(self, value: bytes, fail: Fail) -> bytes:
        """File capabilities of the container's root as those of any root."""
        if len(value) != 24 or struct.unpack_from("<I", value)[0] & _REVISION_MASK != _REVISION_3:
            return value
        (root,) = struct.unpack_from("<I", value, 20)
        if _inside(self._maps.uids, root, "user", fail) != 0:
            raise fail(f"its capabilities hold for the root of another namespace, user {root}")
        (magic,) = struct.unpack_from("<I", value)
        return struct.pack("<I", magic & ~_REVISION_MASK | _REVISION_2) + value[4:20]


def _inside(ranges: Ranges, number: int, what: str, fail: Fail) -> int:
    for inside, outside, count in ranges:
        if outside <= number < outside + count:
            return inside + number - outside
    raise fail(f"{what} {number} is none of the container's")


def attributes(fd: int, shift: Shift | None, fail: Fail) -> dict[bytes, bytes]:
    """The pax records for the attributes of a file or directory that layers keep: user.* and capabilities.

    What overlay keeps there for itself is left out, unless it says that the file is not what it seems: refused.
    """
    records: dict[bytes, bytes] = {}
    for name in _names(fd):
        if name in (_OVERLAY + "redirect", _OVERLAY + "metacopy"):
            raise fail(f"attribute {name!r}: its contents are in another layer")
        if name == _CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay.")):
            if "=" in name:
                raise fail(f"a pax record cannot hold an attribute named {name!r}")
            try:
                value = os.getxattr(fd, name)
            except OSError as error:
                if error.errno == errno.ENODATA:
                    continue
                raise
            if shift and name == _CAPABILITY:
                value = shift.capability(value, fail)
            records[b"SCHILY.xattr." + os.fsencode(name)] = value
    return records


def is_opaque(fd: int, fail: Fail) -> bool:
    """Whether a directory of an overlay's layer hides what lower layers have in it."""
    try:
        value = os.getxattr(fd, _OPAQUE)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise
    if value != b"y":
        # kernel, filesystems/overlayfs.rst: "x" announces whiteouts that are regular files.
        raise fail(f"attribute {_OPAQUE!r} of value {value!r} is not supported")
    return True


def _names(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise
