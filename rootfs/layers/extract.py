"""Writing the members of an archive below a directory, by descriptor, in the form overlay wants its lower layers.

The kernel follows no link: the directory of each member is opened as places.py says, the member itself is made with
O_EXCL and O_NOFOLLOW, and owner, mode, times and attributes are set on the descriptor of what was made.

The tree is a function of the archive alone, whatever layers it will lie on: layers are shared between images. A
directory that no member describes is root's, 0755, of 1970.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from kernel.paths import openat2
from rootfs.layers.places import OPEN_DIRECTORY, RESOLVE, WHITEOUT, Place, Places, is_whiteout, make_opaque, refuse
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
from rootfs.removal import remove_tree

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_OPAQUE = ".wh..wh..opq"

_DEVICES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}


class _Dress(NamedTuple):
    """What a directory gets in the end, when nothing is made in it any more."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[str, bytes]


_IMPLIED = _Dress(0o755, 0, 0, 0, {})


class Extractor:
    """Puts members below `root`, the descriptor of an empty directory that nobody else writes to, at most `depth` deep.

    The umask has to be 0. Until finish() directories are root's and closed to others; so what is made in them has its
    owner and mode at once where that is root, and does not inherit the group (inode(7), "set-group-ID").
    """

    def __init__(self, root: int, depth: int) -> None:
        self._places = Places(root, depth)
        self._directories: dict[str, _Dress] = {}
        status = os.fstat(root)
        owners = (os.geteuid(), os.getegid(), status.st_gid, status.st_mode & stat.S_ISGID)
        self._exact = owners == (0, 0, 0, 0) and not _has_default_acl(root)

    def close(self) -> None:
        """Close what is open."""
        self._places.close()

    def finish(self) -> None:
        """Give directories their owners, modes, attributes and times. Those below come first."""
        self._note_implied()
        root = self._places.root.fd
        for path in reversed(self._directories):
            dress = self._directories[path]
            fd = openat2(root, path or ".", OPEN_DIRECTORY, resolve=RESOLVE)
            try:
                if dress.uid or dress.gid or not self._exact:
                    os.fchown(fd, dress.uid, dress.gid)
                os.fchmod(fd, dress.mode)
                for name, value in dress.xattrs.items():
                    os.setxattr(fd, name, value)
                os.utime(fd, ns=(dress.mtime_ns, dress.mtime_ns))
            finally:
                os.close(fd)

    def add(self, member: Member, source: Source) -> None:
        """Make one member; its contents are read from `source` in full. Raises TarError."""
        head, name = self._places.split(member)
        if not name:
            if member.type != DIRECTORY:
                raise refuse(member, "the root of the archive is not a directory")
            self._directories[""] = _dress(member)
            return
        parent = self._places.directory(head, member)
        if name.startswith(WHITEOUT):
            _whiteout(parent.fd, name, member)
            source.skip(member.stored)
            return
        try:
            self._make(parent, name, member, source)
        except FileExistsError:
            if not self._kept(parent, name, member):
                self._replace(head, name, member, source)

    def _make(self, parent: Place, name: str, member: Member, source: Source) -> None:
        """Make what is not there yet. Raises FileExistsError, before anything was read, if something is."""
        if member.type == REGULAR:
            self._make_file(parent.fd, name, member, source)
        elif member.type == DIRECTORY:
            dress = _dress(member)
            os.mkdir(name, 0o700, dir_fd=parent.fd)
            self._directories[parent.below(name)] = dress
        elif member.type == HARD_LINK:
            place, target = self._target(member)
            os.link(target, name, src_dir_fd=place.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
        else:
            if member.type == SYMBOLIC_LINK:
                if not member.link:
                    raise refuse(member, "a symbolic link to nothing")
                os.symlink(member.link, name, dir_fd=parent.fd)
            else:
                os.mknod(name, _DEVICES[member.type] | member.mode, _device(member), dir_fd=parent.fd)
            if member.uid or member.gid or not self._exact:
                os.chown(name, member.uid, member.gid, dir_fd=parent.fd, follow_symlinks=False)
            os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=parent.fd, follow_symlinks=False)

    def _make_file(self, parent: int, name: str, member: Member, source: Source) -> None:
        mode = member.mode
        fd = os.open(name, _NEW, mode & 0o777, dir_fd=parent)
        try:
            if member.segments is not None:
                for start, length in member.segments:
                    os.lseek(fd, start, os.SEEK_SET)
                    source.copy(length, fd)
                os.ftruncate(fd, member.size)
            elif member.stored:
                source.copy(member.stored, fd)
            # In this order: a change of owner clears set-user-ID and capabilities (chown(2)), as writing may.
            if member.uid or member.gid or not self._exact:
                os.fchown(fd, member.uid, member.gid)
                os.fchmod(fd, mode)
            elif mode > 0o777:
                os.fchmod(fd, mode)
            if member.xattrs:
                for attribute, value in _attributes(member).items():
                    os.setxattr(fd, attribute, value)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    def _kept(self, parent: Place, name: str, member: Member) -> bool:
        """A directory given twice keeps what is in it."""
        if member.type != DIRECTORY or not stat.S_ISDIR(_status(parent.fd, name).st_mode):
            return False
        self._directories[parent.below(name)] = _dress(member)
        return True

    def _replace(self, head: str, name: str, member: Member, source: Source) -> None:
        """Make a member in place of what an earlier one of the same name left."""
        parent = self._places.directory(head, member)
        if member.type == HARD_LINK:
            place, target = self._target(member)
            if place.below(target) == parent.below(name):
                raise refuse(member, "a hard link to itself")
            parent = self._places.directory(head, member)
        before = _status(parent.fd, name)
        self._note_implied()
        if stat.S_ISDIR(before.st_mode):
            remove_tree(parent.fd, name)
            path = parent.below(name)
            for known in [known for known in self._directories if known == path or known.startswith(path + "/")]:
                del self._directories[known]
        else:
            os.unlink(name, dir_fd=parent.fd)
        # What was open may lead through what is gone.
        self._places.close()
        self._make(self._places.directory(head, member), name, member, source)
        if member.type == DIRECTORY and is_whiteout(before):
            # Hidden and made anew by the same layer: what lower layers have in it stays hidden.
            make_opaque(self._places.directory(head, member).fd, name)

    def _target(self, member: Member) -> tuple[Place, str]:
        """The directory and name of what a hard link names, which an earlier member made."""
        head, name = self._places.split_link(member)
        place = self._places.directory(head, member)
        try:
            status = _status(place.fd, name)
        except FileNotFoundError:
            status = None
        if status is None or stat.S_ISDIR(status.st_mode) or is_whiteout(status):
            raise refuse(member, f"hard link to {member.link!r}, which is no earlier file of the archive")
        return place, name

    def _note_implied(self) -> None:
        for path in self._places.made:
            self._directories.setdefault(path, _IMPLIED)
        self._places.made.clear()


def _status(directory: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _has_default_acl(fd: int) -> bool:
    try:
        return "system.posix_acl_default" in os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        raise


def _attributes(member: Member) -> dict[str, bytes]:
    """The extended attributes that a member keeps. Labels and signatures of another machine mean nothing here."""
    kept = {}
    for name, value in member.xattrs.items():
        if name.startswith(("trusted.overlay.", "user.overlay.")):
            raise refuse(member, f"attribute {name!r} is overlay's own")
        if name.startswith("user.") or (name == "security.capability" and member.type == REGULAR):
            kept[name] = value
    return kept


def _dress(member: Member) -> _Dress:
    return _Dress(member.mode, member.uid, member.gid, member.mtime_ns, _attributes(member) if member.xattrs else {})


def _whiteout(parent: int, name: str, member: Member) -> None:
    """`.wh.NAME` hides NAME of lower layers, `.wh..wh..opq` all of the directory; never what this layer itself has."""
    hidden = name.removeprefix(WHITEOUT)
    if name == _OPAQUE:
        make_opaque(parent, ".")
    elif hidden.startswith(WHITEOUT):
        return  # aufs kept its own records under such names; image-spec reserves them
    elif hidden in ("", ".", ".."):
        raise refuse(member, f"whiteout {name!r} without a name to hide")
    else:
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
            os.utime(hidden, (0, 0), dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            if stat.S_ISDIR(_status(parent, hidden).st_mode):
                make_opaque(parent, hidden)


def _device(member: Member) -> int:
    if member.type == FIFO:
        return 0
    if not (0 <= member.major < 1 << 12 and 0 <= member.minor < 1 << 20):
        raise refuse(member, f"device number {member.major}:{member.minor} is out of range")
    number = os.makedev(member.major, member.minor)
    if member.type == CHARACTER and number == 0:
        raise refuse(member, "character device 0:0 is overlay's whiteout")
    return number
