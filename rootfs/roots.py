"""The root itself: cutting the mount namespace off from the host's, a plain directory as root, pivot_root(2)."""

from __future__ import annotations

import os

from kernel.mounts import (
    AT_EMPTY_PATH,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
    mount,
    mount_setattr,
    pivot_root,
    umount2,
)
from kernel.operation import Assembly, Operation
from rootfs.binds import clone
from rootfs.filesystems import propagate
from rootfs.overlay import attach_root

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
    """Directory `path` of the host, with what is mounted below it, as the root."""

    path: str

    def describe(self) -> str:
        return f"bind {self.path} -> new root"

    def execute(self, assembly: Assembly) -> None:
        root = clone(self.path, recursive=True)
        propagate(root, MS_PRIVATE | MS_REC)
        attach_root(root)
        assembly.root = root


class ReadOnlyRoot(Operation):
    """Make the root's own mount read-only, not what is mounted in it. After the last mount target is made."""

    def describe(self) -> str:
        return "make the root read-only"

    def execute(self, assembly: Assembly) -> None:
        mount_setattr(assembly.root, "", AT_EMPTY_PATH, set=MOUNT_ATTR_RDONLY)


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
