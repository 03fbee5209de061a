"""The root itself: cutting the mount namespace off from the host's, a plain directory as root, pivot_root(2)."""

from __future__ import annotations

import errno
import os

from kernel.errors import ContainerError, SystemCallError
from kernel.mountinfo import own_mounts
from kernel.mounts import (
    AT_EMPTY_PATH,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
    is_mount_root,
    mount,
    mount_setattr,
    pivot_root,
    umount2,
)
from kernel.operation import Assembly, Operation
from kernel.paths import open_in_root
from rootfs.binds import clone
from rootfs.filesystems import propagate
from rootfs.overlay import attach_root
from rootfs.place import attach, is_directory

_NAMES = {MS_PRIVATE: "private", MS_SLAVE: "slave", MS_SHARED: "shared", MS_UNBINDABLE: "unbindable"}


class MakePropagation(Operation):
    """Set the propagation of every mount of the new namespace, so that nothing mounted from now on shows outside.

    MS_SLAVE lets the host's later mounts and unmounts still arrive, which keeps the host's unmounts from being held
    up by us; MS_PRIVATE does not. It has to come before anything is mounted.
    """

    flags: int = MS_REC | MS_SLAVE

    def describe(self) -> str:
        return f"make / {'r' if self.flags & MS_REC else ''}{_NAMES.get(self.flags & ~MS_REC, hex(self.flags))}"

    def execute(self, assembly: Assembly) -> None:
        mount(None, "/", None, self.flags)


class BindRoot(Operation):
    """Directory `path` of the host, with what is mounted below it, as the root.

    MS_SLAVE as `propagation` lets the host's later mounts in it arrive. With `pinned`, PinSource has cloned it. With
    `in_place` it lies on that same directory until pivot_root, where hooks look for the container's mounts; not where
    the users of a container of other users cannot get there.
    """

    path: str
    propagation: int = MS_PRIVATE | MS_REC
    pinned: str = ""
    in_place: bool = False

    def describe(self) -> str:
        return f"bind {self.path} -> new root"

    def execute(self, assembly: Assembly) -> None:
        root = assembly.fds.pop(self.pinned) if self.pinned else clone(self.path, recursive=True)
        if not is_directory(root):
            os.close(root)
            raise ContainerError(f"the root {self.path!r} is not a directory")
        propagate(root, self.propagation)
        if self.in_place:
            self._attach_in_place(root)
        else:
            attach_root(root)
        assembly.root = root

    def _attach_in_place(self, root: int) -> None:
        try:
            target = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            attach_root(root)
            return
        try:
            attach(root, target)
        finally:
            os.close(target)


class TakeRoot(Operation):
    """The root that the creating process has prepared under the name `pinned`."""

    pinned: str

    def describe(self) -> str:
        return "take the prepared root"

    def execute(self, assembly: Assembly) -> None:
        root = assembly.fds.pop(self.pinned)
        propagate(root, MS_PRIVATE | MS_REC)
        attach_root(root)
        assembly.root = root


class ReadOnlyRoot(Operation):
    """Make the root's own mount read-only, not what is mounted in it. After the last mount target is made."""

    def describe(self) -> str:
        return "make the root read-only"

    def execute(self, assembly: Assembly) -> None:
        mount_setattr(assembly.root, "", AT_EMPTY_PATH, set=MOUNT_ATTR_RDONLY)


class ReadOnlyMount(Operation):
    """Make the mount at `path` read-only, once everything in it is made."""

    path: str

    def describe(self) -> str:
        return f"remount {self.path} [ro]"

    def execute(self, assembly: Assembly) -> None:
        mounted = open_in_root(assembly.root, self.path, os.O_PATH)
        try:
            mount_setattr(mounted, "", AT_EMPTY_PATH, set=MOUNT_ATTR_RDONLY)
        finally:
            os.close(mounted)


class PivotRoot(Operation):
    """Make the assembly's root the root of the mount namespace, let go of the old one, and stand in "/".

    `propagation` is what the new root gets in the end: linux.rootfsPropagation of the OCI runtime-spec.
    """

    propagation: int = 0

    def describe(self) -> str:
        return "pivot_root"

    def execute(self, assembly: Assembly) -> None:
        os.fchdir(assembly.root)
        # With both arguments "." the old root comes to lie on top of the new one, and "." is it (pivot_root(2), Notes).
        pivot_root(".", ".")
        umount2(".", MNT_DETACH)
        os.chdir("/")
        if self.propagation:
            propagate(assembly.root, self.propagation)


class MoveRoot(Operation):
    """Make the assembly's root the process's by chroot(2), for a root that pivot_root(2) does not take: an initramfs is
    under all mounts and cannot be moved away (pivot_root(2), Notes).

    The old root stays below the new one in the mount namespace. A chroot that is left climbs the new one again; only
    who may unmount gets below. The kernel's own file systems of the host are unmounted, as runc does: a user namespace
    may mount procfs and sysfs anew where it finds one that nothing hides.
    """

    propagation: int = 0

    def describe(self) -> str:
        return "move the root over /, chroot"

    def execute(self, assembly: Assembly) -> None:
        # ".." of the root is the root, with what is mounted on it.
        top = os.open("/..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            over = os.path.samestat(os.fstat(top), os.fstat(assembly.root)) and is_mount_root(assembly.root)
        finally:
            os.close(top)
        if not over:
            attach_root(assembly.root)
        _unmount_kernels()
        os.fchdir(assembly.root)
        os.chroot(".")
        os.chdir("/")
        if self.propagation:
            propagate(assembly.root, self.propagation)


def _unmount_kernels() -> None:
    # The paths of what is mounted in the new root begin at "/", too, where only the old one's are found.
    for point in sorted({row.mount_point for row in own_mounts() if row.filesystem in ("proc", "sysfs")}, reverse=True):
        try:
            umount2(point, MNT_DETACH)
        except SystemCallError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
