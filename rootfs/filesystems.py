"""Mounts of filesystems: tmpfs, proc, sysfs, mqueue, devpts, cgroup2 and whatever else a config names.

Each is made detached by fsopen(2), so what is mounted is what was asked for, and only then moved onto its target.
"""

from __future__ import annotations

import os

from kernel.mounts import AT_EMPTY_PATH, AT_RECURSIVE, MS_REC, mount_setattr
from kernel.operation import Assembly, Operation
from rootfs import options
from rootfs.copy import copy_tree
from rootfs.place import attach, new_filesystem, real_directory, target_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


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
        fstype = self.type_name()
        target = self.target(assembly.root)
        mount = -1
        try:
            mount = new_filesystem(fstype, self.source or fstype, self.data_for(target), self.attributes)
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

    def data_for(self, target: int) -> tuple[str, ...]:
        """The options, where they depend on what is mounted over."""
        return self.data

    def fill(self, mount: int, target: int) -> None:
        """What the filesystem holds before anybody sees it: nothing, unless a subclass puts something in."""


class OtherFilesystem(Filesystem):
    """A filesystem that is none of those below, named by `type`."""

    type: str = ""

    def type_name(self) -> str:
        return self.type


class Tmpfs(Filesystem):
    """A tmpfs. Without a "mode=" it takes the mode of the directory it covers; `copy_up` copies its contents, too."""

    fstype: ClassVar[str] = "tmpfs"

    copy_up: bool = False

    def data_for(self, target: int) -> tuple[str, ...]:
        if any(option.startswith("mode=") for option in self.data):
            return self.data
        return (*self.data, f"mode={os.fstat(target).st_mode & 0o7777:o}")

    def fill(self, mount: int, target: int) -> None:
        if self.copy_up:
            copy_tree(target, mount)


class _OfTheKernel(Filesystem):
    """A filesystem whose files are the kernel's: it goes onto a real directory only, never behind a link."""

    def target(self, root: int) -> int:
        return real_directory(root, self.destination)


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
    """The v2 hierarchy from the root of the cgroup namespace the caller is in."""

    fstype = "cgroup2"


def propagate(mount: int, propagation: int) -> None:
    """Set MS_* propagation on an attached mount; with MS_REC on everything below it."""
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if propagation & MS_REC else 0)
    mount_setattr(mount, "", flags, propagation=propagation & ~MS_REC)
