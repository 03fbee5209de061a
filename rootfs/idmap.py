"""Id-mapped mounts: files of one owner shown as another's, for one mount (mount_setattr(2), MOUNT_ATTR_IDMAP)."""

from __future__ import annotations

import errno
import os

from kernel import events
from kernel.errors import BadInput, HostError, SystemCallError
from kernel.mounts import AT_EMPTY_PATH, AT_RECURSIVE, MOUNT_ATTR_IDMAP, TMPFS_MAGIC, mount_setattr, statfs_type
from kernel.pidfd import wait_pidfd
from kernel.process import CLONE_NEWUSER, clone3
from kernel.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kernel.operation import Assembly

Ranges = tuple[tuple[int, int, int], ...]
"""Ranges of ids: (first inside, first outside, how many), as lines of uid_map have them (user_namespaces(7))."""


class IdMaps(Record):
    """How user and group ids are mapped. For a mount "inside" is what the filesystem has, "outside" what is shown."""

    uids: Ranges
    gids: Ranges

    def shown(self) -> str:
        """The ranges as "0:65536:65536", users before groups."""
        return "/".join(",".join(":".join(map(str, row)) for row in rows) for rows in (self.uids, self.gids))


def outside(ranges: Ranges, number: int) -> int:
    """Which id outside `number` inside is. Raises BadInput if it is not mapped."""
    for first, there, count in ranges:
        if first <= number < first + count:
            return there + number - first
    raise BadInput(f"id {number} is not mapped in the user namespace", remedy="map it, or choose another owner")


def write_maps(pid: int, maps: IdMaps) -> None:
    """Write the maps of the new user namespace that process `pid` is in. Can be done once (user_namespaces(7))."""
    for name, rows in (("uid_map", maps.uids), ("gid_map", maps.gids)):
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
        # One write(2): the kernel takes no second one.
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        except OSError as error:
            raise SystemCallError("write", {"file": f"/proc/{pid}/{name}", "data": text}, error.errno or 0) from None
        finally:
            os.close(fd)


def too_many_namespaces(error: SystemCallError) -> SystemCallError:
    """`error` of a call that makes a user namespace, with the limit that it met named as the remedy."""
    if error.errno not in (errno.ENOSPC, errno.EUSERS, errno.EPERM):
        return error
    remedy = "the sysctls user.max_*_namespaces must allow one more (namespaces(7))"
    return SystemCallError(error.name, error.arguments, error.errno, remedy=remedy)


def user_namespace(maps: IdMaps) -> int:
    """A descriptor of a new user namespace with these maps, which holds it: no process stays in it."""
    waiting, release = os.pipe2(os.O_CLOEXEC)
    try:
        child = clone3(CLONE_NEWUSER)
    except SystemCallError as error:
        raise too_many_namespaces(error) from None
    if child.pid == 0:
        try:
            events.instruments.clear()
            os.close(release)
            os.read(waiting, 1)
        finally:
            os._exit(0)
    os.close(waiting)
    try:
        write_maps(child.pid, maps)
        return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(release)
        wait_pidfd(child.pidfd)
        os.close(child.pidfd)


def shared_namespace(assembly: Assembly, maps: IdMaps) -> int:
    """A user namespace with these maps, made once for all operations that need it, which is 1 ms each saved.

    It stays in the assembly's descriptors, and goes with them or with forget_namespace().
    """
    name = f"ids {maps.shown()}"
    if name not in assembly.fds:
        assembly.fds[name] = user_namespace(maps)
    return assembly.fds[name]


def forget_namespace(assembly: Assembly, maps: IdMaps | None) -> None:
    """Close what shared_namespace() left; nothing to do where it is closed already."""
    fd = assembly.fds.pop(f"ids {maps.shown()}", -1) if maps else -1
    if fd >= 0:
        os.close(fd)


def idmap(tree: int, namespace: int, source: str, *, recursive: bool = False) -> None:
    """Map the ids of the detached mount `tree` as the user namespace does, with `recursive` of those below it, too.

    Raises HostError where the filesystem cannot: tmpfs since Linux 6.3, overlay never.
    """
    try:
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        mount_setattr(tree, "", flags, set=MOUNT_ATTR_IDMAP, userns_fd=namespace)
    except SystemCallError as error:
        if error.errno != errno.EINVAL:
            raise
        kind = "a tmpfs (before Linux 6.3)" if statfs_type(tree) == TMPFS_MAGIC else "its filesystem"
        raise HostError(
            f"the ids of {source!r} cannot be mapped: {kind} does not support id-mapped mounts",
            remedy="use a directory on ext4, xfs or btrfs, or Linux 6.3 for tmpfs",
        ) from None
