"""Bind mounts, and what is done with them: masked paths, read-only paths, changed flags."""

from __future__ import annotations

import errno
import os
import stat

from kernel.errors import HostError, NotFound, SystemCallError
from kernel.mounts import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    mount_setattr,
    open_tree,
)
from kernel.operation import Assembly, Operation
from kernel.paths import open_in_root
from rootfs import options
from rootfs.filesystems import propagate
from rootfs.place import attach, attach_and_close, is_directory, new_filesystem, target_directory, target_file


class Bind(Operation):
    """`source` of the host on `destination` in the root.

    `source` is resolved once, by the kernel, into a detached mount; whatever happens to the path afterwards changes
    nothing. With `within` it is resolved inside that directory, whose links cannot lead out (for subPath volumes).
    `set` and `clear` are MOUNT_ATTR_* of the mount itself, `tree_set` and `tree_clear` of all mounts below it, too.
    Without `propagation` the bind is private. Raises NotFound if there is no source.
    """

    source: str
    destination: str
    recursive: bool = True
    set: int = 0
    clear: int = 0
    tree_set: int = 0
    tree_clear: int = 0
    propagation: int = MS_PRIVATE | MS_REC
    within: str = ""

    def describe(self) -> str:
        words = options.names(self.set, self.clear) + [
            "r" + name for name in options.names(self.tree_set, self.tree_clear)
        ]
        shown = ",".join(["rbind" if self.recursive else "bind", *words])
        source = f"{self.within}:{self.source}" if self.within else self.source
        return f"bind {source} -> {self.destination} [{shown}]"

    def execute(self, assembly: Assembly) -> None:
        tree = assembly.fds.pop(pinned_name(self.source), -1)
        if tree < 0:
            tree = clone(self.source, recursive=self.recursive, within=self.within)
        target = -1
        try:
            if self.tree_set or self.tree_clear:
                mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set=self.tree_set, clear=self.tree_clear)
            if self.set or self.clear:
                mount_setattr(tree, "", AT_EMPTY_PATH, set=self.set, clear=self.clear)
            if self.propagation:
                propagate(tree, self.propagation)
            make = target_directory if is_directory(tree) else target_file
            target = make(assembly.root, self.destination)
            attach(tree, target)
        finally:
            os.close(tree)
            if target >= 0:
                os.close(target)


class PinSource(Operation):
    """Clone `source` before the mount namespace is cut off from the host's, for a later Bind of the same source.

    For binds that are to stay slave or shared: once MakePropagation has made everything private, the tie is lost.
    """

    source: str
    recursive: bool = True

    def describe(self) -> str:
        return f"pin {self.source}"

    def execute(self, assembly: Assembly) -> None:
        assembly.fds[pinned_name(self.source)] = clone(self.source, recursive=self.recursive)


class Remount(Operation):
    """Change the flags of what is mounted on `destination`: "remount" of mount(8), as far as a mount has flags."""

    destination: str
    set: int = 0
    clear: int = 0
    tree_set: int = 0
    tree_clear: int = 0
    propagation: int = 0

    def describe(self) -> str:
        words = options.names(self.set, self.clear) + [
            "r" + name for name in options.names(self.tree_set, self.tree_clear)
        ]
        return f"remount {self.destination} [{','.join(words)}]"

    def execute(self, assembly: Assembly) -> None:
        target = open_in_root(assembly.root, self.destination, os.O_PATH)
        try:
            if self.tree_set or self.tree_clear:
                mount_setattr(target, "", AT_EMPTY_PATH | AT_RECURSIVE, set=self.tree_set, clear=self.tree_clear)
            if self.set or self.clear:
                mount_setattr(target, "", AT_EMPTY_PATH, set=self.set, clear=self.clear)
            if self.propagation:
                propagate(target, self.propagation)
        finally:
            os.close(target)


class Mask(Operation):
    """Hide `path`: a file behind the host's /dev/null, a directory behind an empty read-only tmpfs.

    A path that is not there needs no mask.
    """

    path: str

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, assembly: Assembly) -> None:
        target = _existing(assembly.root, self.path)
        if target < 0:
            return
        try:
            cover = _empty_directory() if is_directory(target) else _null(assembly)
        except BaseException:
            os.close(target)
            raise
        attach_and_close(cover, target)


class ReadOnly(Operation):
    """Make `path`, with all that is mounted below it, read-only. A path that is not there needs nothing."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, assembly: Assembly) -> None:
        target = _existing(assembly.root, self.path)
        if target < 0:
            return
        try:
            tree = open_tree(target, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE)
            try:
                mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set=MOUNT_ATTR_RDONLY)
                attach(tree, target)
            finally:
                os.close(tree)
        finally:
            os.close(target)


def clone(source: str, *, recursive: bool, within: str = "") -> int:
    """A detached bind mount of `source` (open_tree(2)), with everything mounted below it if `recursive`."""
    flags = OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0)
    try:
        if not within:
            return open_tree(AT_FDCWD, source, flags)
        directory = os.open(within, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pinned = open_in_root(directory, source, os.O_PATH)
        finally:
            os.close(directory)
        try:
            return open_tree(pinned, "", flags | AT_EMPTY_PATH)
        finally:
            os.close(pinned)
    except (SystemCallError, FileNotFoundError) as error:
        if error.errno != errno.ENOENT:
            raise
        shown = f"{source!r} in {within!r}" if within else repr(source)
        raise NotFound(f"mount source {shown} does not exist") from None


def pinned_name(source: str) -> str:
    """The name under which PinSource leaves its descriptor in Assembly.fds."""
    return "source:" + source


def _existing(root: int, path: str) -> int:
    try:
        return open_in_root(root, path, os.O_PATH)
    except SystemCallError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return -1
        raise


def _null(assembly: Assembly) -> int:
    """A detached bind of the host's /dev/null, of which the descriptor is checked, not the path."""
    null = assembly.fds.get("null", -1)
    if null < 0:
        null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(null)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
            os.close(null)
            raise HostError(
                "/dev/null of the host is not the character device 1:3", remedy="mknod -m 666 /dev/null c 1 3"
            )
        assembly.fds["null"] = null
    return open_tree(null, "", AT_EMPTY_PATH | OPEN_TREE_CLONE)


def _empty_directory() -> int:
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    return new_filesystem("tmpfs", "tmpfs", ("size=0", "nr_inodes=1", "mode=755"), attributes)
