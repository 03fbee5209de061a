"""Where mounts go: targets inside the new root, resolved and made by descriptor, and the move onto them.

Everything here works on the root's descriptor before pivot_root(2). A link in the image, and a link that somebody swaps
in meanwhile, is followed inside the root or refused; it never reaches the host.
"""

from __future__ import annotations

import errno
import os
import stat

from kernel.errors import ContainerError, SystemCallError
from kernel.mounts import (
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    PROC_SUPER_MAGIC,
    fsconfig_create,
    fsconfig_reconfigure,
    fsconfig_set_flag,
    fsconfig_set_string,
    fsmount,
    fsopen,
    fspick,
    move_mount,
    statfs_type,
)
from kernel.paths import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    create_file_in_root,
    mkdir_in_root,
    open_in_root,
    openat2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LINKS_MAX = 40  # as path_resolution(7)


def attach(mount: int, target: int) -> None:
    """Move the detached `mount` onto the directory or file behind `target`. Both stay open."""
    move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def attach_and_close(mount: int, target: int) -> None:
    """attach(), and close both descriptors whatever happens."""
    try:
        attach(mount, target)
    finally:
        os.close(mount)
        os.close(target)


def target_directory(root: int, path: str) -> int:
    """A descriptor of directory `path` inside the root, made if it is missing."""
    try:
        return _made(mkdir_in_root, root, path)
    except SystemCallError as error:
        if error.errno != errno.ENOTDIR or not exists(root, path):
            raise
        raise ContainerError(f"{path!r} in the root is a file, what is mounted there a directory") from None


def target_file(root: int, path: str) -> int:
    """A descriptor of `path` inside the root, made as an empty file if it is missing."""
    return _made(create_file_in_root, root, path)


def target_link(root: int, path: str, link: str) -> None:
    """Make the symbolic link `path` inside the root, which says `link`; one that says so already is fine."""
    parent_path, name = os.path.split(normal(path))
    parent = mkdir_in_root(root, parent_path)
    try:
        os.symlink(link, name, dir_fd=parent)
    except FileExistsError:
        try:
            present = os.readlink(name, dir_fd=parent)
        except OSError:
            present = ""
        if present != link:
            raise ContainerError(f"{path!r} in the root exists and is no link to {link!r}") from None
    finally:
        os.close(parent)


def _made(make: Callable[[int, str], int], root: int, path: str) -> int:
    for _ in range(_LINKS_MAX):
        try:
            return make(root, path)
        except SystemCallError as error:
            if error.errno != errno.ENOENT:
                raise
            # The last component is a link that dangles (/etc/resolv.conf often does): make what it points to.
            path = _pointed_to(root, path, error)
    raise ContainerError(f"mount target {path!r}: too many symbolic links")


def _pointed_to(root: int, path: str, error: SystemCallError) -> str:
    parent_path, name = os.path.split(os.path.normpath("/" + path))
    parent = mkdir_in_root(root, parent_path)
    try:
        return os.path.join(parent_path, os.readlink(name, dir_fd=parent))
    except OSError:
        raise error from None
    finally:
        os.close(parent)


def real_directory(root: int, path: str) -> int:
    """A descriptor of directory `path`, no component of which is a link; made if it is missing.

    For /proc, /sys and /dev: an image that ships a link there wants the kernel's files to appear elsewhere.
    Raises ContainerError if there is a link or something that is no directory.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    for _ in range(2):
        try:
            return openat2(root, path, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
        except SystemCallError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise ContainerError(f"{path!r} in the image is not a directory: nothing is mounted there") from None
            if error.errno != errno.ENOENT:
                raise
        os.close(mkdir_in_root(root, path))
    raise ContainerError(f"{path!r} in the image cannot be made a directory")


def exists(root: int, path: str) -> bool:
    """Whether there is anything at `path` inside the root."""
    try:
        os.close(open_in_root(root, path, os.O_PATH))
    except SystemCallError:
        return False
    return True


# What lxcfs and its like stand in for; everything else in /proc is the kernel's word and stays it.
_REPLACED_IN_PROC = frozenset(
    {
        *(f"/proc/{name}" for name in ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps")),
        *("/proc/uptime", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled"),
    }
)


def check_not_in_proc(root: int, target: int, destination: str) -> None:
    """Refuse a mount over what the container's /proc holds: what is read and written there has to be the kernel's.

    `destination` is only what it is called; where it leads is known by the descriptor, whatever links there are.
    Another procfs, as the host's on /host/proc, is nobody's word here.
    """
    path = normal(destination)
    if path == "/proc" or path in _REPLACED_IN_PROC or statfs_type(target) != PROC_SUPER_MAGIC:
        return
    try:
        proc = open_in_root(root, "/proc", os.O_PATH)
    except SystemCallError as error:
        if error.errno != errno.ENOENT:
            raise
        return
    try:
        same = os.fstat(proc).st_dev == os.fstat(target).st_dev
    finally:
        os.close(proc)
    if same:
        raise ContainerError(f"mount destination {destination!r} is in /proc, where nothing else is mounted")


def normal(path: str) -> str:
    """`path` from the root, with "." and ".." taken out by their names alone."""
    return "/" + os.path.normpath("/" + path).lstrip("/")


def is_directory(fd: int) -> bool:
    """Whether the descriptor is of a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def new_filesystem(fstype: str, source: str, data: tuple[str, ...], attributes: int) -> int:
    """A detached mount of a fresh filesystem. `data` are its options, "key" or "key=value".

    Raises SystemCallError with the kernel's own explanation, where it gives one, as the remedy.
    """
    context = fsopen(fstype)
    try:
        if source:
            fsconfig_set_string(context, "source", source)
        set_options(context, data)
        fsconfig_create(context)
        return fsmount(context, attributes)
    except SystemCallError as error:
        raise explained(error, context) from None
    finally:
        os.close(context)


def reconfigure(mounted: int, data: tuple[str, ...]) -> None:
    """Change the options of the filesystem that is mounted at a descriptor."""
    context = fspick(mounted)
    try:
        set_options(context, data)
        fsconfig_reconfigure(context)
    except SystemCallError as error:
        raise explained(error, context) from None
    finally:
        os.close(context)


def set_options(context: int, data: tuple[str, ...]) -> None:
    """Give a filesystem context its options, "key" or "key=value"."""
    for option in data:
        key, has_value, value = option.partition("=")
        if has_value:
            fsconfig_set_string(context, key, value)
        else:
            fsconfig_set_flag(context, key)


def explained(error: SystemCallError, context: int) -> SystemCallError:
    """`error` with what the kernel wrote to the filesystem context about it (fsconfig(2), "message retrieval")."""
    lines: list[str] = []
    try:
        while len(lines) < 16:
            lines.append(os.read(context, 1024).decode(errors="replace")[2:].strip())
    except OSError:
        pass  # ENODATA: that was all
    if not lines:
        return error
    return SystemCallError(error.name, error.arguments, error.errno, remedy="; ".join(lines))
