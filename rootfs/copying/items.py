"""What is copied beside contents: mode, owner, times and extended attributes, and whose a copy is."""

from __future__ import annotations

import errno
import os
import stat
import struct

from kernel.errors import BadInput
from kernel.record import Record

CAPABILITY = "security.capability"

_SET_ID = stat.S_ISUID | stat.S_ISGID
_NOBODY = 65534  # what the kernel shows for an id that a user namespace does not map (user_namespaces(7))
_IDS = 65536

# struct vfs_cap_data, and vfs_ns_cap_data with the root user's id behind it (capabilities(7), "Versions").
_CAPABILITY_2 = 20
_REVISION_MASK, _REVISION_3 = 0xFF000000, 0x03000000


class Item(Record):
    """One file, as its source has it. Owners are those that the source's reader sees; `rdev` is a device's number."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    rdev: int = 0
    xattrs: dict[str, bytes] = {}

    @classmethod
    def of(cls, status: os.stat_result, xattrs: dict[str, bytes] | None = None) -> Item:
        """From stat(2)."""
        times = status.st_atime_ns, status.st_mtime_ns
        return cls(status.st_mode, status.st_uid, status.st_gid, *times, status.st_rdev, xattrs or {})

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Dress(Record):
    """What a copy is given, in numbers of the target's file system."""

    uid: int
    gid: int
    mode: int
    xattrs: dict[str, bytes]


class Owners(Record):
    """Whose the copies are: with `keep` who owns the source, by number, else `uid` and `gid`.

    `source_ids` and `target_ids` are the first id of the host that the container on that side maps, where it has
    users of its own: numbers are those that are seen inside.
    """

    keep: bool
    uid: int = 0
    gid: int = 0
    source_ids: int | None = None
    target_ids: int | None = None

    def dress(self, item: Item) -> Dress:
        """What to give to the copy of `item`.

        What a program may do by its mode or attribute is bound to its owner: it is kept where that remains the same to
        the host, and left off where it does not, as chown(2) does. Raises BadInput for an owner who is not mapped.
        """
        uid, gid = self.named(item.uid, item.gid) if self.keep else (self.uid, self.gid)
        privileged = (uid, gid) == (item.uid, item.gid)
        mode = stat.S_IMODE(item.mode)
        if not privileged and not item.is_directory:
            mode &= ~_SET_ID
        capable = privileged and stat.S_ISREG(item.mode)
        xattrs = {name: value for name, value in item.xattrs.items() if _copied(name, capable)}
        if self.target_ids is not None and CAPABILITY in xattrs:
            xattrs[CAPABILITY] = _capability_of(xattrs[CAPABILITY], self.target_ids)
        return Dress(self._outside(uid), self._outside(gid), mode, xattrs)

    def named(self, uid: int, gid: int) -> tuple[int, int]:
        """An owner of the source as the source's own side numbers it."""
        return self._inside(uid), self._inside(gid)

    def _inside(self, number: int) -> int:
        if self.source_ids is None:
            return number
        inside = number - self.source_ids
        return inside if 0 <= inside < _IDS else _NOBODY

    def _outside(self, number: int) -> int:
        if self.target_ids is None:
            return number
        if number >= _IDS:
            raise BadInput(f"owner {number} is not among the {_IDS} users of the container", remedy="copy without -a")
        return number + self.target_ids


def _copied(name: str, capable: bool) -> bool:
    """Users' attributes are; an overlay's are its own; labels and access lists belong to the machine they are on."""
    return capable if name == CAPABILITY else name.startswith("user.") and not name.startswith("user.overlay.")


def _capability_of(value: bytes, root: int) -> bytes:
    """File capabilities that hold in the user namespace whose root is `root` to the host."""
    if len(value) != _CAPABILITY_2:
        return value
    magic = struct.unpack_from("<I", value)[0] & ~_REVISION_MASK | _REVISION_3
    return struct.pack("<I", magic) + value[4:] + struct.pack("<I", root)


def read_xattrs(fd: int) -> dict[str, bytes]:
    """The extended attributes of an open file that a copy may be given; none where the file system has none."""
    found: dict[str, bytes] = {}
    try:
        for name in os.listxattr(fd):
            if name.startswith("user.") or name == CAPABILITY:
                found[name] = os.getxattr(fd, name)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES):
            raise
    return found
