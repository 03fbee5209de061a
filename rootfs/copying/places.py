"""Looking paths up on either side: on the host as everybody does, in a container inside its root and by descriptor."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from kernel.errors import BadInput, ContainerError, NotFound, RawpodError, SystemCallError
from kernel.mounts import AT_FDCWD
from kernel.paths import open_in_root, openat2
from kernel.record import Record
from rootfs.copying.rules import Place, asserts_directory, split

_LINKS_MAX = 40  # as path_resolution(7)
_SHOWN = 200  # characters of a path
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class Root(Record):
    """Where paths begin: the root directory behind descriptor `fd`, which no link and no ".." leads out of.

    -1 is the host's, of whoever runs the program: there links are followed as the kernel does.
    """

    fd: int = -1

    def open(self, path: str, flags: int) -> int:
        """Open `path`. Raises SystemCallError."""
        if self.fd < 0:
            return openat2(AT_FDCWD, path, flags)
        return open_in_root(self.fd, path, flags)


class Found(Record):
    """What a target is: its `path` with links at its end followed, and "directory", "file" or "" for nothing there."""

    path: str
    kind: str


def source(root: Root, place: Place, *, follow: bool) -> int:
    """An O_PATH descriptor of what is to be copied. Raises NotFound.

    A link is what is copied, unless `follow` or a spelling that says it is a directory.
    """
    follow = follow or asserts_directory(place.path)
    try:
        return root.open(place.path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    except SystemCallError as error:
        raise _refused(place, error) from None


def target(root: Root, place: Place) -> Found:
    """What is at a target. Raises NotFound where its directory is missing, BadInput for a device, FIFO or socket."""
    path = place.path
    for _ in range(_LINKS_MAX):
        try:
            fd = root.open(path, os.O_PATH | (0 if asserts_directory(path) else os.O_NOFOLLOW))
        except SystemCallError as error:
            if error.errno not in _ABSENT:
                raise _refused(place, error) from None
            return _absent(root, place, path)
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISLNK(mode):
                return Found(path, _kind(mode, place))
            link = os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
        path = os.path.join(split(path)[0], link)
    raise BadInput(f"{place.shown()!r}: too many symbolic links")


def directory(root: Root, place: Place, path: str) -> int:
    """An O_PATH descriptor of directory `path`, which is where `place` leads. Raises NotFound."""
    try:
        return root.open(path, os.O_PATH | os.O_DIRECTORY)
    except SystemCallError as error:
        raise _refused(place, error) from None


def _absent(root: Root, place: Place, path: str) -> Found:
    """Nothing is there by that spelling, which is fine if its directory is."""
    above, name = split(path)
    try:
        parent = root.open(above, os.O_PATH | os.O_DIRECTORY)
    except SystemCallError as error:
        if error.errno not in _ABSENT:
            raise _refused(place, error) from None
        raise NotFound(f"{place.shown()!r}: there is no directory {above!r}") from None
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)  # of "FILE/"
    except FileNotFoundError:
        return Found(path, "")
    finally:
        os.close(parent)
    return Found(path, "file")


def _kind(mode: int, place: Place) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    if not stat.S_ISREG(mode):
        raise BadInput(f"{place.shown()!r} is neither a directory nor a regular file")
    return "file"


def _refused(place: Place, error: SystemCallError) -> Exception:
    if error.errno in _ABSENT:
        return NotFound(f"{place.shown()!r} does not exist")
    if error.errno == errno.ELOOP:
        return BadInput(f"{place.shown()!r}: too many symbolic links, or one of the kernel's own")
    return ContainerError(f"{place.shown()!r}: {error.strerror}")


@contextmanager
def located(path: str) -> Iterator[None]:
    """Errors within it say which file they are about. Not to be nested."""
    path = path if len(path) <= _SHOWN else f"{path[: _SHOWN // 2]}…{path[-_SHOWN // 2 :]}"
    try:
        yield
    except SystemCallError as error:
        raise ContainerError(f"cannot copy {path!r}: {error.strerror}") from error
    except RawpodError as error:
        raise type(error)(f"cannot copy {path!r}: {error.message}", remedy=error.remedy) from error
    except BrokenPipeError:
        raise  # whoever read what is written has gone
    except OSError as error:
        raise ContainerError(f"cannot copy {path!r}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    text = os.strerror(error.errno or 0)
    return text[:1].lower() + text[1:]
