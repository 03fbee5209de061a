"""Copies as tar archives: out of a tree to a pipe, and from a pipe into a directory of a container.

Unlike a layer, such an archive is put where other files are already, and names in it that begin with ".wh." are names.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Callable

from kernel.errors import BadInput, Conflict, SystemCallError
from rootfs.copying.items import Item, Owners, read_xattrs
from rootfs.copying.kernels import check_ordinary, ordinary
from rootfs.copying.places import Root, located
from rootfs.copying.receiver import Receiver
from rootfs.copying.walk import Step, open_contents, walk
from rootfs.layers.stream import Stream, StreamLimits
from rootfs.layers.tar import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMBOLIC_LINK,
    HeaderLimits,
    Member,
    Source,
    members,
)
from rootfs.layers.tar_file import Write, write_file
from rootfs.layers.tar_header import TarError
from rootfs.layers.tar_write import Common, encode

_CHUNK = 1 << 20
_WHATEVER = 1 << 62
_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_TYPES = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMBOLIC_LINK,
    stat.S_IFIFO: FIFO,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
}
_MODES = {name: mode for mode, name in _TYPES.items()}


def send(place: int, name: str, out: Write, owners: Owners, shown: str, note: Callable[[str], None]) -> None:
    """Write what `place` (O_PATH) stands for to `out` as a tar whose first member is `name`, "." for contents alone.

    Owners are numbers as the container sees them.
    """
    with located(shown):
        check_ordinary(place)
    links: dict[tuple[int, int], str] = {}
    for step in walk(place, name, shown, note):
        if step.leaving:
            continue
        with located(step.path):
            first = links.get((step.status.st_dev, step.status.st_ino))
            if first is None:
                _send_one(step, out, owners)
            else:
                out(encode(os.fsencode(step.path), HARD_LINK, _common(step, owners), link=os.fsencode(first)))
            if step.status.st_nlink > 1 and not step.is_directory:
                links.setdefault((step.status.st_dev, step.status.st_ino), step.path)
    out(bytes(2 * BLOCK))


def _common(step: Step, owners: Owners) -> Common:
    uid, gid = owners.named(step.status.st_uid, step.status.st_gid)
    return Common(stat.S_IMODE(step.status.st_mode), uid, gid, step.status.st_mtime_ns)


def _send_one(step: Step, out: Write, owners: Owners) -> None:
    name, status, common = os.fsencode(step.path), step.status, _common(step, owners)
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    if kind == REGULAR:
        reading = open_contents(step.place)
        try:
            write_file(out, name, reading, status, common, _records(reading), bytes)  # what was cut off is zeros
        finally:
            os.close(reading)
    elif kind == DIRECTORY:
        reading = open_contents(step.place)
        try:
            out(encode(name + b"/", kind, common, records=_records(reading)))
        finally:
            os.close(reading)
    elif kind == SYMBOLIC_LINK:
        out(encode(name, kind, common, link=os.fsencode(os.readlink("", dir_fd=step.place))))
    else:
        out(encode(name, kind, common, major=os.major(status.st_rdev), minor=os.minor(status.st_rdev)))


def _records(fd: int) -> dict[bytes, bytes]:
    return {b"SCHILY.xattr." + os.fsencode(name): value for name, value in read_xattrs(fd).items()}


class Delivery:
    """Puts the members of an archive below directory `path` of a container's root.

    Their directories are looked up inside the root, so that a link of the container, as /lib often is, leads where it
    leads there; the members themselves are made as every copy is.
    """

    def __init__(self, root: Root, path: str, receiver: Receiver) -> None:
        self._root, self._path, self._receiver = root, path, receiver
        self._directories: dict[str, Item] = {}

    def run(self, source: Source, limits: HeaderLimits) -> None:
        """All members, to the end of the archive. Raises TarError."""
        for member in members(source, limits):
            with located(member.name):
                self._add(member, source)
            self._receiver.size += member.stored
        # Whatever was made in a directory has changed its times.
        for path, item in self._directories.items():
            with located(path):
                self._dress(path, item)

    def _add(self, member: Member, source: Source) -> None:
        parts = _components(member.name)
        if not parts:
            if member.type != DIRECTORY:
                raise BadInput("a member without a name")
            return  # the directory that was named as the target stays as it is
        parent = self._directory(parts[:-1])
        try:
            self._make(parent, parts, member, source)
        finally:
            os.close(parent)

    def _make(self, parent: int, parts: list[str], member: Member, source: Source) -> None:
        name, path = parts[-1], "/".join(parts)
        item = _item(member)
        if member.type == DIRECTORY:
            os.close(self._receiver.directory(parent, name))
            self._directories[path] = item
        elif member.type == REGULAR:
            self._receiver.file(parent, name, item, lambda fd: _fill(fd, member, source))
        elif member.type == SYMBOLIC_LINK:
            self._receiver.symlink(parent, name, member.link, item)
        elif member.type == HARD_LINK:
            self._link(parent, name, _components(member.link))
        else:
            self._receiver.node(parent, name, item)

    def _directory(self, parts: list[str]) -> int:
        """A descriptor of the directory with these names, made where it is missing."""
        fd = self._open("/".join(parts))
        if fd >= 0:
            return fd
        above = self._directory(parts[:-1])
        try:
            try:
                os.mkdir(parts[-1], 0o755, dir_fd=above)
            except FileExistsError:
                pass
        finally:
            os.close(above)
        fd = self._open("/".join(parts))
        if fd < 0:
            raise Conflict(f"its directory {'/'.join(parts)!r} cannot be made")
        return fd

    def _open(self, path: str) -> int:
        try:
            return ordinary(self._root.open(os.path.join(self._path, path), os.O_RDONLY | os.O_DIRECTORY))
        except SystemCallError as error:
            if error.errno == errno.ENOENT and path:
                return -1
            raise

    def _link(self, parent: int, name: str, parts: list[str]) -> None:
        if not parts:
            raise BadInput("a hard link to the target directory")
        directory = self._directory(parts[:-1])
        try:
            original = os.open(parts[-1], _PLACE, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            if stat.S_ISDIR(os.fstat(original).st_mode):
                raise BadInput("a hard link to a directory")
            if not self._receiver.link(parent, name, original):
                raise Conflict("a hard link to a file on another file system")
        finally:
            os.close(original)

    def _dress(self, path: str, item: Item) -> None:
        *above, name = path.split("/")
        parent = self._open("/".join(above))
        if parent < 0:
            return
        try:
            fd = self._receiver.directory(parent, name)
            try:
                self._receiver.dress(fd, item)
            finally:
                os.close(fd)
        finally:
            os.close(parent)


def _components(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadInput("a name with '..' in it")
    return parts


def _item(member: Member) -> Item:
    mode = member.mode | _MODES.get(member.type, stat.S_IFREG)
    device = os.makedev(member.major, member.minor) if member.type in (CHARACTER, BLOCK_DEVICE) else 0
    return Item(mode, member.uid, member.gid, member.mtime_ns, member.mtime_ns, device, member.xattrs)


def _fill(fd: int, member: Member, source: Source) -> None:
    for start, length in ((0, member.stored),) if member.segments is None else member.segments:
        os.lseek(fd, start, os.SEEK_SET)
        source.copy(length, fd)
    os.ftruncate(fd, member.size)


def receive(archive: int, root: Root, path: str, receiver: Receiver) -> None:
    """Put the tar behind descriptor `archive`, plain or in gzip or zstd, below directory `path` of `root`.

    Its caller is trusted with how much there is in it; nothing in it is. Raises BadInput for one that is damaged.
    """
    stream = Stream(archive, StreamLimits(_WHATEVER, _WHATEVER, math.inf))
    try:
        Delivery(root, path, receiver).run(stream, HeaderLimits(_WHATEVER, _CHUNK, 65_536))
        stream.drain()
    except TarError as error:
        where = f"{error.member!r}" if error.member else f"offset {error.offset}"
        raise BadInput(f"standard input is not a tar archive, or is damaged: {where}: {error.reason}") from None
    finally:
        stream.close()
