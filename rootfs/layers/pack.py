"""Packing a directory into the tar of a layer: a root file system, an overlay's upper directory, a stack of layers.

The tree may be one that a payload has filled. Directories are opened by their path from the root with RESOLVE_BENEATH
and RESOLVE_NO_SYMLINKS (openat2(2)), files with O_NOFOLLOW, so that nothing outside is ever read. The same tree gives
the same bytes: members come in the order of their names, without names of users, access times and inode numbers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from kernel.errors import RawpodError, SystemCallError
from kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from rootfs.layers.attributes import Shift, attributes, is_opaque
from rootfs.layers.limits import Limits
from rootfs.layers.output import Output, Packed
from rootfs.layers.tar import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, HARD_LINK, REGULAR, SYMBOLIC_LINK
from rootfs.layers.tar_file import write_file
from rootfs.layers.tar_write import Common, encode

if TYPE_CHECKING:
    from rootfs.idmap import IdMaps
    from rootfs.layers.output import Compression

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_PATH_MAX = 4096
_DEPTH_MAX = Limits().depth  # what is packed can be unpacked
_WHITEOUT, _OPAQUE = b".wh.", b".wh..wh..opq"  # image-spec, layer.md, "Whiteouts"

_DEVICES = {stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK_DEVICE, stat.S_IFIFO: FIFO}


class PackError(RawpodError):
    """A directory cannot be a layer, or could not be read. Names the path in it."""

    def __init__(self, path: bytes, reason: str, *, remedy: str | None = None) -> None:
        super().__init__(f"cannot pack {os.fsdecode(path) or '/'!r}: {reason}", remedy=remedy)
        self.path = path
        self.reason = reason


def pack(
    root: int,
    output: int,
    *,
    upper: bool,
    compression: Compression | None,
    ids: IdMaps | None = None,
) -> Packed:
    """Write directory `root` as the tar of a layer to descriptor `output`, in gzip or zstd if asked for.

    With `upper` the directory has overlay's form, as upper directories and unpacked layers do: its whiteouts and opaque
    directories become OCI's. Without, it is the whole of a root file system. `ids` maps the owners found ("outside") to
    those written ("inside"), for a container with users of its own. Raises PackError, and
    RawpodError where `output` cannot be written.
    """
    return _pack((root,), output, compression, whiteouts=upper, ids=ids)


def pack_union(
    roots: Sequence[int], output: int, *, compression: Compression | None, ids: IdMaps | None = None
) -> Packed:
    """Write what an overlay of directories `roots`, topmost first, shows, as the tar of one layer. `ids`: of the first.

    Raises as pack() does.
    """
    return _pack(roots, output, compression, whiteouts=False, ids=ids)


def _pack(
    roots: Sequence[int], output: int, compression: Compression | None, *, whiteouts: bool, ids: IdMaps | None
) -> Packed:
    shifts = [Shift(ids) if ids and number == 0 else None for number in range(len(roots))]
    with Output(output, compression) as out:
        packer = _Packer(roots, shifts, out, whiteouts)
        packer.pack()
        out.write(bytes(1024))
        return out.finish()


class _Found(NamedTuple):
    """One name of a directory: in which layers it is, topmost first; more than one only for directories."""

    layers: list[int]
    status: os.stat_result


class _Packer:
    def __init__(self, roots: Sequence[int], shifts: Sequence[Shift | None], out: Output, whiteouts: bool) -> None:
        self._roots = roots
        self._shifts = shifts
        self._out = out
        self._whiteouts = whiteouts
        self._links: dict[tuple[int, int], bytes] = {}

    def pack(self) -> None:
        # Each directory is opened anew by its path: no stack of descriptors grows with the depth.
        waiting: list[tuple[bytes, list[int]]] = [(b"", list(range(len(self._roots))))]
        while waiting:
            path, layers = waiting.pop()
            with ExitStack() as opened, _Explained(path):
                below = self._directory(path, layers, opened)
                waiting.extend(reversed(below))

    def _directory(self, path: bytes, layers: list[int], opened: ExitStack) -> list[tuple[bytes, list[int]]]:
        """Write one directory and what is in it but for the directories, which are returned with their layers."""
        fds: dict[int, int] = {}
        opaque = False
        for layer in layers:
            try:
                fds[layer] = openat2(self._roots[layer], path or b".", _DIRECTORY, resolve=_RESOLVE)
            except SystemCallError as error:
                if error.errno == errno.ENOENT and path:
                    continue  # removed since it was listed
                raise
            opened.callback(os.close, fds[layer])
            if is_opaque(fds[layer], lambda reason: PackError(path, reason)):
                opaque = True
                break
        if not fds:
            return []
        first = next(iter(fds))
        self._write(path, os.fstat(fds[first]), fds[first], first)
        found, hidden = self._entries(path, fds)
        if self._whiteouts:
            for name in ([_OPAQUE] if opaque else []) + [_WHITEOUT + name for name in hidden]:
                self._out.write(encode(_join(path, name), REGULAR))
        below = []
        for name in sorted(found):
            entry = found[name]
            if stat.S_ISDIR(entry.status.st_mode):
                below.append((_join(path, name), entry.layers))
            else:
                self._entry(_join(path, name), name, fds[entry.layers[0]], entry)
        return below

    def _entries(self, path: bytes, fds: dict[int, int]) -> tuple[dict[bytes, _Found], list[bytes]]:
        """What the directory shows, and the names that are whiteouts, in order."""
        found: dict[bytes, _Found] = {}
        closed: set[bytes] = set()  # names that hide what lower layers have
        hidden: set[bytes] = set()
        for layer, fd in fds.items():
            closing = set()
            for item in os.listdir(fd):
                name = os.fsencode(item)
                if name in closed:
                    continue
                try:
                    status = os.stat(item, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                directory = stat.S_ISDIR(status.st_mode)
                if not directory:
                    closing.add(name)
                if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    if name not in found:
                        hidden.add(name)
                    continue
                if name.startswith(_WHITEOUT):
                    reason = "in a layer a name that begins with '.wh.' hides another"
                    raise PackError(_join(path, name), reason, remedy="rename or remove the file")
                if name not in found:
                    found[name] = _Found([layer], status)
                elif directory:
                    found[name].layers.append(layer)
            closed |= closing
        return found, sorted(hidden)

    def _entry(self, path: bytes, name: bytes, directory: int, entry: _Found) -> None:
        """Write what is no directory."""
        status = entry.status
        if stat.S_ISSOCK(status.st_mode):
            return  # it means nothing without the process that made it
        with _Explained(path):
            if status.st_nlink > 1:
                first = self._links.setdefault((status.st_dev, status.st_ino), path)
                if first != path:
                    self._out.write(encode(path, HARD_LINK, self._common(path, status, entry.layers[0]), link=first))
                    return
            if stat.S_ISREG(status.st_mode):
                try:
                    fd = os.open(name, _FILE, dir_fd=directory)
                except FileNotFoundError:
                    self._forget(status)
                    return
                try:
                    self._file(path, fd, entry.layers[0])
                finally:
                    os.close(fd)
            else:
                link = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else b""
                self._write(path, status, -1, entry.layers[0], link)

    def _forget(self, status: os.stat_result) -> None:
        self._links.pop((status.st_dev, status.st_ino), None)

    def _common(self, path: bytes, status: os.stat_result, layer: int) -> Common:
        uid, gid = status.st_uid, status.st_gid
        if shift := self._shifts[layer]:
            uid, gid = shift.owner(uid, gid, lambda reason: PackError(path, reason))
        return Common(stat.S_IMODE(status.st_mode), uid, gid, status.st_mtime_ns)

    def _write(self, path: bytes, status: os.stat_result, fd: int, layer: int, link: bytes = b"") -> None:
        """The header of what has no contents; `fd` is a directory's."""
        common = self._common(path, status, layer)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            records = attributes(fd, self._shifts[layer], lambda reason: PackError(path, reason))
            self._out.write(encode(path + b"/" if path else b"./", DIRECTORY, common, records=records))
        elif kind == stat.S_IFLNK:
            self._out.write(encode(path, SYMBOLIC_LINK, common, link=link))
        else:
            major, minor = (0, 0) if kind == stat.S_IFIFO else (os.major(status.st_rdev), os.minor(status.st_rdev))
            self._out.write(encode(path, _DEVICES[kind], common, major=major, minor=minor))

    def _file(self, path: bytes, fd: int, layer: int) -> None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise PackError(path, "it changed while it was read", remedy="stop or freeze what writes to it")
        common = self._common(path, status, layer)
        records = attributes(fd, self._shifts[layer], lambda reason: PackError(path, reason))

        def missing(_: int) -> bytes:
            raise PackError(path, "it shrank while it was read", remedy="stop or freeze what writes to it")

        write_file(self._out.write, path, fd, status, common, records, missing)


class _Explained:
    """Names the path in errors of reading; Output has its own for writing."""

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SystemCallError):
            reason = "a file system is mounted in it" if error.errno == errno.EXDEV else error.strerror
            raise PackError(self._path, reason) from None
        if isinstance(error, OSError):
            raise PackError(self._path, (error.strerror or str(error)).lower()) from None


def _join(path: bytes, name: bytes) -> bytes:
    joined = path + b"/" + name if path else name
    if len(joined) > _PATH_MAX:
        raise PackError(joined[:200] + b"...", f"a path of more than {_PATH_MAX} bytes")
    if joined.count(b"/") >= _DEPTH_MAX:
        raise PackError(joined[:200] + b"...", f"a path of more than {_DEPTH_MAX} names")
    return joined
