"""Writing copies into a directory that somebody else may be changing, by descriptor, one name at a time.

A name is only ever taken in a directory that is held open; no link is followed; what has the name is replaced, but a
directory by nothing and by a directory nothing else. So whatever is swapped meanwhile, a copy ends in the file system
that its target directory belongs to, or the copy is refused.
"""

from __future__ import annotations

import errno
import os
import stat

from kernel.errors import Conflict
from kernel.mounts import is_mount_root
from rootfs.copying.kernels import check_ordinary, ordinary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootfs.copying.items import Item, Owners

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNSUPPORTED = (errno.ENOTSUP, errno.EPERM, errno.ENOSPC, errno.E2BIG)


class Receiver:
    """Makes copies that belong to `owners`. `notes` collects, in words, what a target could not be given."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._made = 0
        self.notes: dict[str, int] = {}
        self.size = 0

    def note(self, text: str) -> None:
        """Count something that the user should know of."""
        self.notes[text] = self.notes.get(text, 0) + 1

    def directory(self, parent: int, name: str) -> int:
        """A descriptor of directory `name`, made if it is missing; its owner and mode are for dress()."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
        try:
            return ordinary(os.open(name, _DIRECTORY, dir_fd=parent))
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise Conflict("a directory cannot take the place of what is no directory") from None

    def file(self, parent: int, name: str, item: Item, fill: Callable[[int], None]) -> None:
        """A regular file, whose contents `fill` writes to a descriptor. A reader of an older one sees no half of it."""
        occupied = self._occupied(parent, name)
        if occupied and self._fill_mounted(parent, name, fill):
            return
        made = self._unused_name() if occupied else name
        fd = os.open(made, _NEW, 0o600, dir_fd=parent)
        try:
            try:
                fill(fd)
                self.dress(fd, item)
            finally:
                os.close(fd)
            if made != name:
                os.rename(made, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            _unlink(parent, made)
            raise

    def symlink(self, parent: int, name: str, target: str, item: Item) -> None:
        """A symbolic link, which says what it says and is not followed."""
        self._vacate(parent, name)
        os.symlink(target, name, dir_fd=parent)
        self._dress_name(parent, name, item)

    def node(self, parent: int, name: str, item: Item) -> None:
        """A FIFO or a device."""
        self._vacate(parent, name)
        os.mknod(name, stat.S_IFMT(item.mode) | 0o600, item.rdev, dir_fd=parent)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            found = os.fstat(fd)
            if (stat.S_IFMT(found.st_mode), found.st_rdev) != (stat.S_IFMT(item.mode), item.rdev):
                raise Conflict("it was replaced while it was copied")
            dress = self._owners.dress(item)
            path = f"/proc/self/fd/{fd}"
            os.chown(path, dress.uid, dress.gid)
            os.chmod(path, dress.mode)
            os.utime(path, ns=(item.atime_ns, item.mtime_ns))
        finally:
            os.close(fd)

    def link(self, parent: int, name: str, original: int) -> bool:
        """Another name for what descriptor `original` (O_PATH) stands for; False where that cannot be."""
        self._vacate(parent, name)
        try:
            os.link(f"/proc/self/fd/{original}", name, dst_dir_fd=parent, follow_symlinks=True)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOENT):
                raise
            return False
        return True

    def dress(self, fd: int, item: Item) -> None:
        """Owner, mode, attributes and times. In this order: a change of owner clears set-user-ID and capabilities."""
        dress = self._owners.dress(item)
        os.fchown(fd, dress.uid, dress.gid)
        os.fchmod(fd, dress.mode)
        for name, value in dress.xattrs.items():
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self.note(f"attribute {name!r} could not be kept: {os.strerror(error.errno or 0).lower()}")
        os.utime(fd, ns=(item.atime_ns, item.mtime_ns))

    def _dress_name(self, parent: int, name: str, item: Item) -> None:
        dress = self._owners.dress(item)
        os.chown(name, dress.uid, dress.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(item.atime_ns, item.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _occupied(self, parent: int, name: str) -> bool:
        """Whether something has the name. Raises Conflict for a directory."""
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(mode):
            raise Conflict("what is no directory cannot take the place of a directory")
        return True

    def _vacate(self, parent: int, name: str) -> None:
        if not self._occupied(parent, name):
            return
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if is_mount_root(place):
                raise Conflict("something is mounted there, which only a file's contents can be copied into")
        finally:
            os.close(place)
        _unlink(parent, name)

    def _fill_mounted(self, parent: int, name: str, fill: Callable[[int], None]) -> bool:
        """Write into a file that is mounted there, such as a volume of a single file; False for any other.

        Its name cannot be given to another file: from this mount namespace the kernel would let us, and take the
        container's mount away without a word (rename(2), mount_namespaces(7)).
        """
        try:
            place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return False
        try:
            if not is_mount_root(place):
                return False
            if not stat.S_ISREG(os.fstat(place).st_mode):
                raise Conflict("what is mounted there is not a regular file")
            check_ordinary(place)
            fd = os.open(f"/proc/self/fd/{place}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        finally:
            os.close(place)
        try:
            fill(fd)
        finally:
            os.close(fd)
        return True

    def _unused_name(self) -> str:
        self._made += 1
        return f".rawpod-cp-{os.getpid()}-{self._made}"


def _unlink(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
