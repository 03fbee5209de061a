"""Writing the members of an archive below a directory, by descriptor, in the form overlay wants its lower layers.

No link is ever followed: the directory of each member is opened with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS
(openat2(2)), the member itself is made with O_EXCL and O_NOFOLLOW, and owner, mode, times and attributes are set on the
descriptor of what was made.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from contextlib import suppress

from kernel.errors import SystemCallError
from kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from rootfs.files import write_all
from rootfs.layers.tar import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMBOLIC_LINK,
    Member,
    Source,
)
from rootfs.layers.tar_header import TarError
from rootfs.removal import remove_tree

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_CHUNK = 1 << 20
_NAME_MAX = 255  # bytes, of one component
_OPEN_DIRECTORIES = 64

# image-spec, layer.md, "Whiteouts"; the attribute is how overlay says it (kernel, filesystems/overlayfs.rst).
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"

_DEVICES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}


class Extractor:
    """Puts members below `root`, the descriptor of a directory that nobody else writes to. The umask has to be 0."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: OrderedDict[str, int] = OrderedDict()
        self._times: dict[str, int] = {}

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.popitem()[1])

    def finish(self) -> None:
        """Set the times of directories: whatever was made in one has changed them."""
        for path, mtime in self._times.items():
            fd = openat2(self._root, path or ".", _DIRECTORY, resolve=_RESOLVE)
            try:
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)

    def add(self, member: Member, source: Source) -> None:
        """Make one member; its contents are read from `source` in full. Raises TarError."""
        parts = _components(member)
        if not parts:
            if member.type != DIRECTORY:
                raise refuse(member, "the root of the archive is not a directory")
            self._dress(self._root, member)
            self._times[""] = member.mtime_ns
            return
        parent_path, name, path = "/".join(parts[:-1]), parts[-1], "/".join(parts)
        parent = self._directory(parent_path, member)
        if name.startswith(_WHITEOUT):
            _whiteout(parent, name, member)
            source.skip(member.stored)
            return
        if member.type == HARD_LINK and _components(member, member.link) == parts:
            raise refuse(member, "a hard link to itself")
        before = _status(parent, name)
        if before is not None and not (stat.S_ISDIR(before.st_mode) and member.type == DIRECTORY):
            self._clear(parent, path, name, before)
            parent = self._directory(parent_path, member)
        if member.type == DIRECTORY:
            self._make_directory(parent, name, path, member, before)
        elif member.type == REGULAR:
            self._make_file(parent, name, member, source)
        elif member.type == SYMBOLIC_LINK:
            _make_link(parent, name, member)
        elif member.type == HARD_LINK:
            self._make_hard_link(parent, name, member)
        else:
            _make_device(parent, name, member)

    def _directory(self, path: str, member: Member) -> int:
        """A descriptor of directory `path`, made if it is missing. It stays ours and is good until the next call."""
        if not path:
            return self._root
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        try:
            fd = openat2(self._root, path, os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
        except SystemCallError as error:
            if error.errno != errno.ENOENT:
                raise _refused_directory(member, error) from None
            fd = self._make_directories(path, member)
        if len(self._open) >= _OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1])
        self._open[path] = fd
        return fd

    def _make_directories(self, path: str, member: Member) -> int:
        fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        for name in path.split("/"):
            try:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=fd)
                below = openat2(fd, name, os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
            except SystemCallError as error:
                raise _refused_directory(member, error) from None
            finally:
                os.close(fd)
            fd = below
        return fd

    def _clear(self, parent: int, path: str, name: str, status: os.stat_result) -> None:
        """Remove what an earlier member of the same name left. Closes the descriptors of directories it removes."""
        if stat.S_ISDIR(status.st_mode):
            remove_tree(parent, name)
            self.close()
            for known in [known for known in self._times if known == path or known.startswith(path + "/")]:
                del self._times[known]
        else:
            os.unlink(name, dir_fd=parent)

    def _make_directory(self, parent: int, name: str, path: str, member: Member, before: os.stat_result | None) -> None:
        if before is None or not stat.S_ISDIR(before.st_mode):
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            if before is not None and _is_whiteout(before):
                # Hidden and made anew by the same layer: what lower layers have in it stays hidden.
                os.setxattr(fd, _OPAQUE_ATTRIBUTE, b"y")
            self._dress(fd, member)
        finally:
            os.close(fd)
        self._times[path] = member.mtime_ns

    def _make_file(self, parent: int, name: str, member: Member, source: Source) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=parent)
        try:
            if member.segments is None:
                _copy(source, fd, member.stored)
            else:
                for start, length in member.segments:
                    os.lseek(fd, start, os.SEEK_SET)
                    _copy(source, fd, length)
                os.ftruncate(fd, member.size)
            self._dress(fd, member)
        finally:
            os.close(fd)

    def _make_hard_link(self, parent: int, name: str, member: Member) -> None:
        *directory, target = _components(member, member.link) or [""]
        if not target:
            raise refuse(member, "a hard link to the root")
        # The directory's descriptor may push that of the parent out of the cache.
        held = os.dup(parent)
        try:
            below = self._directory("/".join(directory), member)
            status = _status(below, target)
            if status is None or stat.S_ISDIR(status.st_mode) or _is_whiteout(status):
                raise refuse(member, f"hard link to {member.link!r}, which is no earlier file of the archive")
            os.link(target, name, src_dir_fd=below, dst_dir_fd=held, follow_symlinks=False)
        finally:
            os.close(held)

    def _dress(self, fd: int, member: Member) -> None:
        """Owner, mode, attributes and times. In this order: a change of owner clears set-user-ID and capabilities."""
        os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode)
        for name, value in member.xattrs.items():
            if name.startswith(("trusted.overlay.", "user.overlay.")):
                raise refuse(member, f"attribute {name!r} is overlay's own")
            # Labels and signatures of the machine that made the archive mean nothing here.
            if name.startswith("user.") or (name == "security.capability" and member.type == REGULAR):
                os.setxattr(fd, name, value)
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))


def refuse(member: Member, reason: str) -> TarError:
    """The error about one member."""
    return TarError(reason, member.offset, member.name)


def _refused_directory(member: Member, error: SystemCallError) -> Exception:
    if error.errno in (errno.ELOOP, errno.EXDEV):
        return refuse(member, "its directory is reached through a symbolic link")
    if error.errno == errno.ENOTDIR:
        return refuse(member, "its directory is a file or a link")
    return error


def _components(member: Member, path: str | None = None) -> list[str]:
    """The names on the way to a member, or to `path`, from the archive's root; a leading "/" is that root."""
    parts = [part for part in (member.name if path is None else path).split("/") if part not in ("", ".")]
    for part in parts:
        if part == "..":
            raise refuse(member, f"{'its name' if path is None else 'its link target'} leaves the root with '..'")
        if len(os.fsencode(part)) > _NAME_MAX:
            raise refuse(member, f"a name of more than {_NAME_MAX} bytes")
    if any(part.startswith(_WHITEOUT) for part in (parts[:-1] if path is None else parts)):
        raise refuse(member, "a whiteout used as a directory or a link target")
    return parts


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _whiteout(parent: int, name: str, member: Member) -> None:
    """`.wh.NAME` hides NAME of lower layers, `.wh..wh..opq` all of the directory; never what this layer itself has."""
    hidden = name.removeprefix(_WHITEOUT)
    if name == _OPAQUE:
        _make_opaque(parent, ".")
    elif hidden.startswith(_WHITEOUT):
        return  # aufs kept its own records under such names; image-spec reserves them
    elif hidden in ("", ".", ".."):
        raise refuse(member, f"whiteout {name!r} without a name to hide")
    else:
        before = _status(parent, hidden)
        if before is None:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        elif stat.S_ISDIR(before.st_mode):
            _make_opaque(parent, hidden)


def _make_opaque(parent: int, name: str) -> None:
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        os.setxattr(fd, _OPAQUE_ATTRIBUTE, b"y")
    finally:
        os.close(fd)


def _make_link(parent: int, name: str, member: Member) -> None:
    if not member.link:
        raise refuse(member, "a symbolic link to nothing")
    os.symlink(member.link, name, dir_fd=parent)
    os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _make_device(parent: int, name: str, member: Member) -> None:
    number = 0
    if member.type != FIFO:
        if not (0 <= member.major < 1 << 12 and 0 <= member.minor < 1 << 20):
            raise refuse(member, f"device number {member.major}:{member.minor} is out of range")
        number = os.makedev(member.major, member.minor)
        if member.type == CHARACTER and number == 0:
            raise refuse(member, "character device 0:0 is overlay's whiteout")
    os.mknod(name, _DEVICES[member.type] | member.mode, number, dir_fd=parent)
    os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _copy(source: Source, fd: int, size: int) -> None:
    while size:
        data = source.read(min(size, _CHUNK))
        write_all(fd, data)
        size -= len(data)
