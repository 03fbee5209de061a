"""Mounts of filesystems: tmpfs, proc, sysfs, mqueue, devpts, cgroup2 and whatever else a config names.

Each is made detached by fsopen(2), so what is mounted is what was asked for, and only then moved onto its target.
"""

from __future__ import annotations

import errno
import os

from kernel.errors import HostError, SystemCallError
from kernel.mounts import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    mount,
    mount_setattr,
    open_tree,
)
from kernel.operation import Assembly, Operation
from kernel.paths import open_in_root
from rootfs import options
from rootfs.copy import copy_tree
from rootfs.place import attach, check_not_in_proc, exists, new_filesystem, real_directory, target_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


_VALUE_MAX = 255
_COMMON_FLAGS = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


class Filesystem(Operation):
    """A fresh filesystem on `destination`.

    `attributes` are MOUNT_ATTR_*, `data` the filesystem's own options, `propagation` 0 or MS_* (with MS_REC).
    """

    fstype: ClassVar[str] = ""

    destination: str
    attributes: int = 0
    data: tuple[str, ...] = ()
    source: str = ""
    propagation: int = 0

    def describe(self) -> str:
        shown = ",".join((*options.names(self.attributes), *self.data))
        return f"mount {self.type_name()} -> {self.destination}" + (f" [{shown}]" if shown else "")

    def execute(self, assembly: Assembly) -> None:
        os.close(self.mount(assembly))

    def mount(self, assembly: Assembly) -> int:
        """Make it and put it in place; a descriptor of the mount."""
        existed = exists(assembly.root, self.destination)
        target = self.target(assembly.root)
        mount = -1
        try:
            check_not_in_proc(assembly.root, target, self.destination)
            mount = self.make(target, existed)
            self.fill(mount, target)
            attach(mount, target)
            if self.propagation:
                propagate(mount, self.propagation)
        except BaseException:
            if mount >= 0:
                os.close(mount)
            raise
        finally:
            os.close(target)
        return mount

    def type_name(self) -> str:
        """The filesystem's type, as /proc/filesystems has it."""
        return self.fstype

    def target(self, root: int) -> int:
        """The directory it goes to."""
        return target_directory(root, self.destination)

    def make(self, target: int, existed: bool) -> int:
        """The detached mount. `existed` is whether the directory behind `target` was there before."""
        fstype = self.type_name()
        return new_filesystem(fstype, self.source or fstype, self.data, self.attributes)

    def fill(self, mount: int, target: int) -> None:
        """What the filesystem holds before anybody sees it: nothing, unless a subclass puts something in."""


class OtherFilesystem(Filesystem):
    """A filesystem that is none of those below, named by `type`. Read-only, its device is opened so, too."""

    type: str = ""

    def type_name(self) -> str:
        return self.type

    def mount(self, assembly: Assembly) -> int:
        # fsconfig(2) takes at most 255 bytes of a value; an overlay's may be longer. Before Linux 6.5 its options were
        # joined by commas on their way in, so that none may hold one.
        if all(len(os.fsencode(option.partition("=")[2])) <= _VALUE_MAX and "," not in option for option in self.data):
            return super().mount(assembly)
        target = self.target(assembly.root)
        try:
            check_not_in_proc(assembly.root, target, self.destination)
            # By descriptor all the same: the path names nothing but that. What the two kinds of flags have in common
            # are the lowest four.
            path, flags = f"/proc/self/fd/{target}", self.attributes & _COMMON_FLAGS
            mount(self.source or self.type, path, self.type, flags, ",".join(self.data))
        finally:
            os.close(target)
        mounted = open_in_root(assembly.root, self.destination, os.O_PATH)
        if self.attributes & ~_COMMON_FLAGS:
            # Access times are one field, which is cleared to be set.
            mount_setattr(mounted, "", AT_EMPTY_PATH, set=self.attributes, clear=MOUNT_ATTR__ATIME)
        propagate(mounted, self.propagation or MS_PRIVATE)
        return mounted

    def make(self, target: int, existed: bool) -> int:
        data = ("ro", *self.data) if self.attributes & MOUNT_ATTR_RDONLY else self.data
        return new_filesystem(self.type, self.source or self.type, data, self.attributes)


class Tmpfs(Filesystem):
    """A tmpfs. Without a "mode=" it takes the mode of the directory it covers, tmpfs's own 1777 where there was none.

    `copy_up` copies the contents of the directory, too, and its owner unless one is given.
    """

    fstype: ClassVar[str] = "tmpfs"

    copy_up: bool = False

    def make(self, target: int, existed: bool) -> int:
        data = self.data
        if existed and not any(option.startswith("mode=") for option in data):
            data = (*data, f"mode={os.fstat(target).st_mode & 0o7777:o}")
        # What is copied has to be written first.
        attributes = self.attributes & ~MOUNT_ATTR_RDONLY if self.copy_up else self.attributes
        return new_filesystem("tmpfs", self.source or "tmpfs", data, attributes)

    def fill(self, mount: int, target: int) -> None:
        if self.copy_up:
            given = any(option.startswith(("mode=", "uid=", "gid=")) for option in self.data)
            copy_tree(target, mount, itself=not given)
            if self.attributes & MOUNT_ATTR_RDONLY:
                mount_setattr(mount, "", AT_EMPTY_PATH, set=MOUNT_ATTR_RDONLY)


class _OfTheKernel(Filesystem):
    """A filesystem whose files are the kernel's: it goes onto a real directory only, never behind a link.

    With `host`, a directory of the host, that is bound with all below it: for a namespace that is the host's, and so
    not for another user namespace to mount anew. `otherwise` is bound where the kernel answers that it may not be
    mounted.
    """

    host: str = ""
    otherwise: str = ""

    def describe(self) -> str:
        return super().describe() + (f" (the host's {self.host})" if self.host else "")

    def target(self, root: int) -> int:
        return real_directory(root, self.destination)

    def make(self, target: int, existed: bool) -> int:
        if self.host:
            return bound(self.host, self.attributes)
        try:
            return super().make(target, existed)
        except SystemCallError as error:
            if not self.otherwise or error.errno not in (errno.EPERM, errno.EBUSY):
                raise
        return bound(self.otherwise, self.attributes)


class Proc(_OfTheKernel):
    """proc of the pid namespace the caller is in."""

    fstype = "proc"


class Sysfs(_OfTheKernel):
    """sysfs of the network namespace the caller is in."""

    fstype = "sysfs"


class Mqueue(_OfTheKernel):
    """mqueue of the ipc namespace the caller is in."""

    fstype = "mqueue"


class Devpts(_OfTheKernel):
    """devpts; every mount of it is an instance of its own."""

    fstype = "devpts"


class CgroupView(_OfTheKernel):
    """The v2 hierarchy from the root of the cgroup namespace the caller is in.

    Without a namespace of its own it is bound from `host`: to mount it anew from the host's namespace would reset its
    options nsdelegate and memory_recursiveprot for everybody (cgroup-v2.rst, "Mounting").
    """

    fstype = "cgroup2"


class NeedLabels(Operation):
    """The host has SELinux, so that filesystems can be labelled. Raises HostError where it has not."""

    label: str

    def describe(self) -> str:
        return f"look for SELinux, to label mounts {self.label}"

    def execute(self, assembly: Assembly) -> None:
        if not os.path.exists("/sys/fs/selinux/enforce"):
            raise HostError(
                f"linux.mountLabel {self.label!r}: this host has no SELinux", remedy="leave the label out of the config"
            )


def bound(path: str, attributes: int) -> int:
    """A detached bind of the host's directory `path` with all that is mounted below, `attributes` set on each."""
    tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | AT_RECURSIVE)
    try:
        propagate(tree, MS_PRIVATE | MS_REC)
        if attributes:
            # Access times are a field, not bits; the host's stay.
            mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set=attributes & ~MOUNT_ATTR__ATIME)
    except BaseException:
        os.close(tree)
        raise
    return tree


def propagate(mount: int, propagation: int) -> None:
    """Set MS_* propagation on a mount; with MS_REC on everything below it."""
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if propagation & MS_REC else 0)
    mount_setattr(mount, "", flags, propagation=propagation & ~MS_REC)
