"""mount(2), umount2(2), pivot_root(2) and the descriptor-based mount calls, one function each."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_long, c_uint, c_uint64, c_ulong

from kernel.syscalls import SystemCall

Path = str | bytes | os.PathLike[str]

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOSYMFOLLOW = 0x100
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_SYMLINKS = 0x1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# statfs(2), f_type
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
CGROUP2_SUPER_MAGIC = 0x63677270
NSFS_MAGIC = 0x6E736673
OVERLAYFS_SUPER_MAGIC = 0x794C7630

_STATX_ATTR_MOUNT_ROOT = 0x2000

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSPICK_CLOEXEC, _FSPICK_EMPTY_PATH = 1, 8
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_SET_FD = 0, 1, 5
_FSCONFIG_CMD_CREATE, _FSCONFIG_CMD_RECONFIGURE = 6, 7


class _MountAttributes(ctypes.Structure):
    _fields_ = [("set", c_uint64), ("clear", c_uint64), ("propagation", c_uint64), ("userns_fd", c_uint64)]


class _Statfs(ctypes.Structure):
    # Only f_type, the first word, is read; the rest is room for the kernel (statfs(2): 120 bytes on 64 bit).
    _fields_ = [("type", c_long), ("rest", c_long * 31)]


class _Statx(ctypes.Structure):
    # Only the attributes are read (statx(2): 256 bytes).
    _fields_ = [("mask", c_uint), ("block_size", c_uint), ("attributes", c_uint64), ("rest", c_uint64 * 30)]


_mount = SystemCall("mount", source=c_char_p, target=c_char_p, fstype=c_char_p, flags=c_ulong, data=c_char_p)
_umount2 = SystemCall("umount2", target=c_char_p, flags=c_int)
_pivot_root = SystemCall("pivot_root", new_root=c_char_p, put_old=c_char_p)
_fsopen = SystemCall("fsopen", fstype=c_char_p, flags=c_uint)
_fspick = SystemCall("fspick", dirfd=c_int, path=c_char_p, flags=c_uint)
_fsconfig = SystemCall("fsconfig", fd=c_int, command=c_uint, key=c_char_p, value=c_char_p, aux=c_int)
_fsmount = SystemCall("fsmount", fd=c_int, flags=c_uint, attributes=c_uint)
_open_tree = SystemCall("open_tree", dirfd=c_int, path=c_char_p, flags=c_uint)
_move_mount = SystemCall(
    "move_mount", from_dirfd=c_int, from_path=c_char_p, to_dirfd=c_int, to_path=c_char_p, flags=c_uint
)
_mount_setattr = SystemCall(
    "mount_setattr", dirfd=c_int, path=c_char_p, flags=c_uint, attributes=POINTER(_MountAttributes), size=c_ulong
)
_fstatfs = SystemCall("fstatfs", fd=c_int, buffer=POINTER(_Statfs))
_statx = SystemCall("statx", fd=c_int, path=c_char_p, flags=c_int, mask=c_uint, buffer=POINTER(_Statx))


def mount(source: Path | None, target: Path, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    _mount(
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        None if fstype is None else fstype.encode(),
        flags,
        None if data is None else os.fsencode(data),
    )


def umount2(target: Path, flags: int = 0) -> None:
    """umount2(2)."""
    _umount2(os.fsencode(target), flags)


def pivot_root(new_root: Path, put_old: Path) -> None:
    """pivot_root(2)."""
    _pivot_root(os.fsencode(new_root), os.fsencode(put_old))


def fsopen(fstype: str) -> int:
    """fsopen(2): a configuration context for a filesystem, close-on-exec."""
    return _fsopen(fstype.encode(), _FSOPEN_CLOEXEC)


def fspick(fd: int) -> int:
    """fspick(2): a configuration context of the filesystem that is mounted at the descriptor, close-on-exec."""
    return _fspick(fd, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)


def fsconfig_set_flag(fd: int, key: str) -> None:
    """fsconfig(2), FSCONFIG_SET_FLAG: an option without a value."""
    _fsconfig(fd, _FSCONFIG_SET_FLAG, key.encode(), None, 0)


def fsconfig_set_string(fd: int, key: str, value: Path) -> None:
    """fsconfig(2), FSCONFIG_SET_STRING. The kernel takes at most 255 bytes of value."""
    _fsconfig(fd, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)


def fsconfig_set_fd(fd: int, key: str, value: int) -> None:
    """fsconfig(2), FSCONFIG_SET_FD."""
    _fsconfig(fd, _FSCONFIG_SET_FD, key.encode(), None, value)


def fsconfig_create(fd: int) -> None:
    """fsconfig(2), FSCONFIG_CMD_CREATE: make the superblock."""
    _fsconfig(fd, _FSCONFIG_CMD_CREATE, None, None, 0)


def fsconfig_reconfigure(fd: int) -> None:
    """fsconfig(2), FSCONFIG_CMD_RECONFIGURE: change the superblock that fspick() chose."""
    _fsconfig(fd, _FSCONFIG_CMD_RECONFIGURE, None, None, 0)


def fsmount(fd: int, attributes: int = 0) -> int:
    """fsmount(2): a detached mount of the configured filesystem; `attributes` are MOUNT_ATTR_*."""
    return _fsmount(fd, _FSMOUNT_CLOEXEC, attributes)


def open_tree(dirfd: int, path: Path, flags: int) -> int:
    """open_tree(2): with OPEN_TREE_CLONE a detached bind mount of `path`. The descriptor is close-on-exec."""
    return _open_tree(dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)


def move_mount(from_dirfd: int, from_path: Path, to_dirfd: int, to_path: Path, flags: int) -> None:
    """move_mount(2)."""
    _move_mount(from_dirfd, os.fsencode(from_path), to_dirfd, os.fsencode(to_path), flags)


def mount_setattr(
    dirfd: int, path: Path, flags: int, *, set: int = 0, clear: int = 0, propagation: int = 0, userns_fd: int = 0
) -> None:
    """mount_setattr(2): MOUNT_ATTR_* to set and clear, MS_* propagation; AT_RECURSIVE in `flags` for the whole tree."""
    attributes = _MountAttributes(set, clear, propagation, userns_fd)
    _mount_setattr(dirfd, os.fsencode(path), flags, attributes, ctypes.sizeof(attributes))


def statfs_type(fd: int) -> int:
    """The filesystem type of an open file: f_type of fstatfs(2), one of the *_MAGIC numbers."""
    buffer = _Statfs()
    _fstatfs(fd, buffer)
    return int(buffer.type)


def is_mount_root(fd: int) -> bool:
    """Whether something is mounted right on what `fd`, opened with O_PATH, stands for (statx(2), MOUNT_ROOT)."""
    buffer = _Statx()
    _statx(fd, b"", AT_EMPTY_PATH, 0, buffer)
    return bool(buffer.attributes & _STATX_ATTR_MOUNT_ROOT)
