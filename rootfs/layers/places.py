"""Where members of an archive go: names checked, directories found or made below the root, links resolved within it.

The kernel follows no link here. A directory is opened with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS (openat2(2)). Where
that meets a link that an earlier member made, the link is read and walked by name, as chroot(2) would have it, until
only directories are left; and those are opened as strictly again. So a mistake in the walk could not lead outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from contextlib import suppress
from typing import NamedTuple

from kernel.errors import SystemCallError
from kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from rootfs.layers.tar import Member
from rootfs.layers.tar_header import TarError

RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# image-spec, layer.md, "Whiteouts"; the attribute is how overlay says it (kernel, filesystems/overlayfs.rst).
WHITEOUT = ".wh."
OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"

_NAME_MAX = 255  # bytes, of one component
_NAME_SURE = _NAME_MAX // 4  # characters that are never more bytes than that
_OPEN_DIRECTORIES = 64
_LINKS_MAX = 40  # as the kernel's own (path_resolution(7))


def refuse(member: Member, reason: str, limit: str = "") -> TarError:
    """The error about one member; `limit` as TarError has it."""
    return TarError(reason, member.offset, member.name, limit=limit)


class Place(NamedTuple):
    """A directory that is open: its path from the root without links, and a descriptor."""

    path: str
    fd: int

    def below(self, name: str) -> str:
        """The path of `name` in it."""
        return f"{self.path}/{name}" if self.path else name


class Places:
    """The directories below `root`, a descriptor. Those that are made are noted in `made`, which the owner reads."""

    def __init__(self, root: int, depth: int) -> None:
        self.root = Place("", root)
        self.made: list[str] = []
        self._depth = depth
        self._open: OrderedDict[str, Place] = OrderedDict()

    def close(self) -> None:
        """Close what is open, as is needed where a directory or a link goes away."""
        while self._open:
            os.close(self._open.popitem()[1].fd)

    def split(self, member: Member) -> tuple[str, str]:
        """(directory, name) of a member; the name is empty for the root. Raises TarError for one that has no place."""
        path = member.name
        if path[-1:] == "/":
            path = path.rstrip("/")
        head, _, name = path.rpartition("/")
        if len(name) <= _NAME_SURE and name not in ("", ".", "..") and not name.startswith(WHITEOUT):
            return head, name  # the directory is checked when it is opened
        parts = self._components(member, path, "its name")
        return ("/".join(parts[:-1]), parts[-1]) if parts else ("", "")

    def split_link(self, member: Member) -> tuple[str, str]:
        """The same for what a hard link names."""
        parts = self._components(member, member.link, "its link target")
        if not parts:
            raise refuse(member, "a hard link to the root")
        if parts[-1].startswith(WHITEOUT):
            raise refuse(member, "a whiteout used as a link target")
        return "/".join(parts[:-1]), parts[-1]

    def directory(self, head: str, member: Member) -> Place:
        """The directory that `head` names in the archive, made if it is missing.

        The descriptor stays ours, and is good until the next call but one, or close().
        """
        if not head:
            return self.root
        place = self._open.get(head)
        if place is not None:
            self._open.move_to_end(head)
            return place
        parts = self._components(member, head, "its name")
        if any(part.startswith(WHITEOUT) for part in parts):
            raise refuse(member, "a whiteout used as a directory")
        if len(parts) >= self._depth:
            raise refuse(member, f"a path of more than {self._depth} names", "depth")
        place = self._opened(parts, member)
        if len(self._open) >= _OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1].fd)
        self._open[head] = place
        return place

    def _components(self, member: Member, path: str, what: str) -> list[str]:
        """The names on the way from the archive's root; a leading "/" is that root."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for part in parts:
            if part == "..":
                raise refuse(member, f"{what} leaves the root with '..'")
            if len(os.fsencode(part)) > _NAME_MAX:
                raise refuse(member, f"a name of more than {_NAME_MAX} bytes")
        return parts

    def _opened(self, parts: list[str], member: Member) -> Place:
        path = "/".join(parts)
        try:
            return Place(path, openat2(self.root.fd, path or ".", os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE))
        except SystemCallError as error:
            # Something is missing, a link, or a file. With O_DIRECTORY a link at the end gives ENOTDIR.
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                raise
        parts = self._without_links(parts, member)
        return Place("/".join(parts), self._make_directories(parts, member))

    def _without_links(self, parts: list[str], member: Member) -> list[str]:
        """The same place by the names of directories alone. What is missing has no links."""
        todo, done, links = parts[::-1], list[str](), 0
        while todo:
            name = todo.pop()
            if name == "..":
                del done[-1:]
            elif name not in ("", "."):
                target = self._link("/".join(done), name)
                if target is None:
                    done.append(name)
                    continue
                links += 1
                if links > _LINKS_MAX:
                    raise refuse(member, f"more than {_LINKS_MAX} symbolic links on the way to it")
                if target.startswith("/"):
                    done.clear()
                todo.extend(target.split("/")[::-1])
        if len(done) >= self._depth:
            raise refuse(member, f"a path of more than {self._depth} names", "depth")
        if any(part.startswith(WHITEOUT) for part in done):
            raise refuse(member, "a whiteout used as a directory")
        return done

    def _link(self, directory: str, name: str) -> str | None:
        """What link `name` says, None if it is something else or missing."""
        try:
            fd = openat2(self.root.fd, directory or ".", os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE)
        except SystemCallError:
            return None
        try:
            return os.readlink(name, dir_fd=fd)
        except OSError:
            return None
        finally:
            os.close(fd)

    def _make_directories(self, parts: list[str], member: Member) -> int:
        fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root.fd)
        for depth, name in enumerate(parts, 1):
            try:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=fd)
                    self.made.append("/".join(parts[:depth]))
                below = openat2(fd, name, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE)
            except SystemCallError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise refuse(member, "its directory is a file") from None
                raise
            finally:
                os.close(fd)
            fd = below
        return fd


def is_whiteout(status: os.stat_result) -> bool:
    """Whether it hides what lower layers have under its name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make_opaque(parent: int, name: str) -> None:
    """Have directory `name` of `parent` hide what lower layers have in it."""
    fd = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
    try:
        os.setxattr(fd, OPAQUE_ATTRIBUTE, b"y")
    finally:
        os.close(fd)
