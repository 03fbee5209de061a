"""The overlay that is a container's root, and the directories of its upper layer."""

from __future__ import annotations

import os

from kernel.errors import BadInput, SystemCallError
from kernel.mounts import (
    AT_FDCWD,
    MOUNT_ATTR_NODEV,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_NODEV,
    fsconfig_create,
    fsconfig_set_string,
    fsmount,
    fsopen,
    mount,
    move_mount,
)
from kernel.operation import Assembly, Operation
from kernel.record import Record
from rootfs.place import explained

# fsconfig(2) copies at most 255 bytes of a string and the terminating zero.
_STRING_MAX = 255

# No container's name begins with a dot.
_REMOVED = ".removed-"


class OverlayRoot(Operation):
    """An overlay of `lowers` (topmost first) under `upper`, attached over "/" and left as the assembly's root.

    Nothing is hidden by it: an absolute path starts at the process's root directory, below the new mount, until
    pivot_root(2). `upper` and `work` are empty directories of one filesystem. Devices of the image are dead in it
    unless `devices`.
    """

    lowers: tuple[str, ...]
    upper: str
    work: str
    devices: bool = False

    def describe(self) -> str:
        return f"overlay {self.upper} on {' on '.join(self.lowers)} -> new root"

    def execute(self, assembly: Assembly) -> None:
        lower = ":".join(path.replace("\\", "\\\\").replace(":", "\\:") for path in self.lowers)
        values = (lower, self.upper, self.work)
        # Before Linux 6.5 overlay's options are joined by commas on their way in, so none may hold one.
        if all(len(os.fsencode(value)) <= _STRING_MAX and "," not in value for value in values):
            assembly.root = self._by_name(lower)
        else:
            assembly.root = self._by_number()

    def _by_name(self, lower: str) -> int:
        context = fsopen("overlay")
        try:
            fsconfig_set_string(context, "source", "overlay")
            fsconfig_set_string(context, "lowerdir", lower)
            fsconfig_set_string(context, "upperdir", self.upper)
            fsconfig_set_string(context, "workdir", self.work)
            fsconfig_create(context)
            root = fsmount(context, 0 if self.devices else MOUNT_ATTR_NODEV)
        except SystemCallError as error:
            raise explained(error, context) from None
        finally:
            os.close(context)
        attach_root(root)
        return root

    def _by_number(self) -> int:
        """For many lowers or long names: mount(2), whose options fill a page, and names of a few digits each.

        They are those of our own descriptors, as the entries of /proc/self/fd.
        """
        fds = []
        before = os.open(".", os.O_PATH | os.O_CLOEXEC)
        try:
            fds = [
                os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                for path in (*self.lowers, self.upper, self.work)
            ]
            os.chdir("/proc/self/fd")
            *lowers, upper, work = map(str, fds)
            data = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
            mount("overlay", "/", "overlay", 0 if self.devices else MS_NODEV, data)
        finally:
            os.fchdir(before)
            for fd in (before, *fds):
                os.close(fd)
        # "/" is still what lies below; ".." of the root is the root again, and stepping onto it climbs the new mount.
        return os.open("/..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def attach_root(root: int) -> None:
    """Put the detached mount `root` on top of "/", where pivot_root(2) can find it."""
    move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH)


class UpperDirectories(Record):
    """A container's upper and work directory."""

    upper: str
    work: str


def upper_directories(root: str | os.PathLike[str], name: str) -> UpperDirectories:
    """Where the upper layer of the container `name` is, below `root` (/var/lib/rawpod/overlay). Computes names only.

    Raises BadInput unless `name` is letters, digits, "_", "." and "-", starting with a letter or digit, at most 200.
    """
    _check_name(name)
    base = f"{os.fspath(root)}/{name}"
    return UpperDirectories(f"{base}/upper", f"{base}/work")


def create_upper(root: str | os.PathLike[str], name: str, *, mode: int = 0o755) -> UpperDirectories:
    """Make the container's directories, and `root` (0700), where they are missing.

    An overlay shows its upper directory's mode and owner on "/".
    """
    directories = upper_directories(root, name)
    os.makedirs(root, mode=0o700, exist_ok=True)
    for path, path_mode in (
        (os.path.dirname(directories.upper), 0o700),
        (directories.upper, mode),
        (directories.work, 0o700),
    ):
        try:
            os.mkdir(path, path_mode)
            os.chmod(path, path_mode)
        except FileExistsError:
            continue
    return directories


def remove_upper(root: str | os.PathLike[str], name: str) -> None:
    """Remove the container's upper layer, whatever its payload left there. It is fine if there is none.

    It takes another name first, so a removal that is cut short leaves nothing under `name`; the next removal
    of the same name finishes it. Nothing may have the overlay mounted any more.
    """
    from rootfs.removal import remove_tree  # not for those who only mount

    _check_name(name)
    try:
        parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_tree(parent, _REMOVED + name)
        try:
            os.rename(name, _REMOVED + name, src_dir_fd=parent, dst_dir_fd=parent)
        except FileNotFoundError:
            return
        remove_tree(parent, _REMOVED + name)
    finally:
        os.close(parent)


def upper_names(root: str | os.PathLike[str]) -> list[str]:
    """The names that have an upper layer, half-removed ones included (they can be given to remove_upper())."""
    try:
        return sorted({name.removeprefix(_REMOVED) for name in os.listdir(root)})
    except FileNotFoundError:
        return []


def _check_name(name: str) -> None:
    allowed = (
        name.isascii() and name[:1].isalnum() and name.replace("_", "").replace(".", "").replace("-", "").isalnum()
    )
    if not allowed or len(name) > 200:
        raise BadInput(f"overlay name {name!r} is not letters, digits, '_', '.' and '-', at most 200")
