"""Bind mounts, and what is done with them: masked paths, read-only paths, changed flags."""

from __future__ import annotations

import errno
import os
import stat

from kernel.errors import ContainerError, HostError, NotFound, RawpodError, SystemCallError
from kernel.mounts import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    AT_SYMLINK_NOFOLLOW,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    PROC_SUPER_MAGIC,
    mount_setattr,
    open_tree,
    statfs_type,
)
from kernel.operation import Assembly, Operation
from kernel.paths import open_beneath, open_in_root
from rootfs import options
from rootfs.copy import copy_tree
from rootfs.filesystems import propagate
from rootfs.idmap import IdMaps, forget_namespace, idmap, shared_namespace
from rootfs.place import (
    attach,
    attach_and_close,
    check_not_in_proc,
    is_directory,
    new_filesystem,
    normal,
    reconfigure,
    target_directory,
    target_file,
    target_link,
)


class Bind(Operation):
    """`source` of the host on `destination` in the root.

    `source` is resolved once, by the kernel, into a detached mount; whatever happens to the path afterwards changes
    nothing. With `within` it is resolved inside that directory, and a link that leads out is an error (for subPath).
    `set` and `clear` are MOUNT_ATTR_* of the mount itself, `tree_set` and `tree_clear` of all mounts below it, too.
    Without `propagation` the bind is private. With `populate` an empty directory first gets a copy of what it covers,
    its owner and mode too, as Docker fills volumes of an image. With `pinned`, PinSource has cloned it under that name
    before. `links` says what becomes of a symbolic link at either end (options.COPY_SYMLINK and others). Raises
    NotFound if there is no source.
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
    pinned: str = ""
    populate: bool = False
    links: frozenset[str] = frozenset()

    def describe(self) -> str:
        words = options.names(self.set, self.clear) + [
            "r" + name for name in options.names(self.tree_set, self.tree_clear)
        ]
        if self.populate:
            words.append("copyup")
        words += sorted(self.links)
        shown = ",".join(["rbind" if self.recursive else "bind", *words])
        source = f"{self.within}:{self.source}" if self.within else self.source
        return f"bind {source} -> {self.destination} [{shown}]"

    def execute(self, assembly: Assembly) -> None:
        if self.pinned:
            tree = assembly.fds.pop(self.pinned)
        else:
            follow = follows_source(self.links)
            tree = clone(self.source, recursive=self.recursive, within=self.within, follow=follow)
        target = -1
        try:
            if options.COPY_SYMLINK in self.links and stat.S_ISLNK(os.fstat(tree).st_mode):
                target_link(assembly.root, self.destination, os.readlink("", dir_fd=tree))
                return
            change(tree, self)
            target = self._target(assembly.root, is_directory(tree))
            check_not_in_proc(assembly.root, target, self.destination)
            if normal(self.destination) == "/proc" and statfs_type(tree) != PROC_SUPER_MAGIC:
                raise ContainerError(f"{self.source!r} is not a procfs: it cannot stand in for /proc")
            if is_directory(target) and not is_directory(tree):
                raise ContainerError(f"{self.destination!r} in the root is a directory, {self.source!r} a file")
            if self.populate and is_directory(tree):
                populate(tree, target)
            attach(tree, target)
        finally:
            os.close(tree)
            if target >= 0:
                os.close(target)

    def _target(self, root: int, directory: bool) -> int:
        if options.TARGET_NOFOLLOW in self.links:
            try:
                return open_in_root(root, self.destination, os.O_PATH | os.O_NOFOLLOW)
            except SystemCallError as error:
                if error.errno != errno.ENOENT:
                    raise
        return (target_directory if directory else target_file)(root, self.destination)


def follows_source(links: frozenset[str]) -> bool:
    """Whether a link as the source stands for what it points to."""
    return links.isdisjoint((options.COPY_SYMLINK, options.SOURCE_NOFOLLOW))


def populate(tree: int, target: int) -> None:
    """Copy directory `target` into directory `tree` if that is empty. What is copied lies inside the root, as `target`.

    It is done by the new process with its own privileges, on descriptors, before anything of the container runs.
    """
    reading = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        empty = not os.listdir(reading)
    finally:
        os.close(reading)
    if empty:
        copy_tree(target, tree)


class PinSource(Operation):
    """Clone `source` early, for a later Bind or BindRoot that has the same `pinned`.

    Early is before the mount namespace is cut off from the host's, for binds that are to stay shared, and before the
    process has another user namespace, whose ids may not be allowed to reach the source and which the kernel does not
    let take a mount without those below it (mount_namespaces(7), "locked"). With `ids` the mount is id-mapped.
    """

    source: str
    pinned: str
    recursive: bool = True
    within: str = ""
    ids: IdMaps | None = None
    ids_recursive: bool = False
    destination: str = "/"
    follow: bool = True

    def describe(self) -> str:
        return f"pin {self.source} for {self.destination}" + (f" with ids {self.ids.shown()}" if self.ids else "")

    def execute(self, assembly: Assembly) -> None:
        try:
            tree = clone(self.source, recursive=self.recursive, within=self.within, follow=self.follow)
            assembly.fds[self.pinned] = tree
            if self.ids:
                namespace = shared_namespace(assembly, self.ids)
                idmap(tree, namespace, self.source, recursive=self.ids_recursive)
        except RawpodError as error:
            # It is executed by the creating process, where nobody else says which mount it is about.
            raise ContainerError(f"{self.describe()}: {error.message}", remedy=error.remedy) from None

    def undo(self, assembly: Assembly) -> None:
        tree = assembly.fds.pop(self.pinned, -1)
        if tree >= 0:
            os.close(tree)
        forget_namespace(assembly, self.ids)


class Remount(Operation):
    """Change the flags of what is mounted on `destination`: "remount" of mount(8).

    Flags of the mount go to the mount, `data` to the filesystem itself, for all who have it mounted.
    """

    destination: str
    set: int = 0
    clear: int = 0
    tree_set: int = 0
    tree_clear: int = 0
    propagation: int = 0
    data: tuple[str, ...] = ()

    def describe(self) -> str:
        words = options.names(self.set, self.clear) + [
            "r" + name for name in options.names(self.tree_set, self.tree_clear)
        ]
        return f"remount {self.destination} [{','.join((*words, *self.data))}]"

    def execute(self, assembly: Assembly) -> None:
        target = open_in_root(assembly.root, self.destination, os.O_PATH)
        try:
            if self.data:
                reconfigure(target, self.data)
            change(target, self)
        finally:
            os.close(target)


def change(mount: int, asked: Bind | Remount) -> None:
    """Set the attributes that a bind or remount asks for, those of the whole tree first."""
    if asked.tree_set or asked.tree_clear:
        mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, set=asked.tree_set, clear=asked.tree_clear)
    if asked.set or asked.clear:
        mount_setattr(mount, "", AT_EMPTY_PATH, set=asked.set, clear=asked.clear)
    if asked.propagation:
        propagate(mount, asked.propagation)


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


def clone(source: str, *, recursive: bool, within: str = "", follow: bool = True) -> int:
    """A detached bind mount of `source` (open_tree(2)), with everything mounted below it if `recursive`.

    Without `follow` a link itself is cloned.
    """
    flags = OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0)
    try:
        if not within:
            return open_tree(AT_FDCWD, source, flags | (0 if follow else AT_SYMLINK_NOFOLLOW))
        directory = os.open(within, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pinned = open_beneath(directory, source, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        finally:
            os.close(directory)
        try:
            return open_tree(pinned, "", flags | AT_EMPTY_PATH)
        finally:
            os.close(pinned)
    except (SystemCallError, FileNotFoundError) as error:
        if error.errno == errno.EXDEV and within:
            raise ContainerError(f"mount source {source!r} leads out of {within!r}") from None
        if error.errno != errno.ENOENT:
            raise
        shown = f"{source!r} in {within!r}" if within else repr(source)
        raise NotFound(f"mount source {shown} does not exist") from None


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
    return clone_device(null)


def clone_device(pinned: int) -> int:
    """A detached bind of a device of the host, which stays as it is: read-only, so that nobody who is root in the
    container changes its mode, owner or times for all. Writing to the device itself is no matter of its mount.
    """
    tree = open_tree(pinned, "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
    try:
        mount_setattr(tree, "", AT_EMPTY_PATH, set=MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _empty_directory() -> int:
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    return new_filesystem("tmpfs", "tmpfs", ("size=0", "nr_inodes=1", "mode=755"), attributes)
