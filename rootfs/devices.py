"""/dev: a tmpfs of its own with the few devices a container gets, and its console."""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from kernel.errors import BadInput, ContainerError, HostError, SystemCallError
from kernel.mounts import AT_EMPTY_PATH, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, OPEN_TREE_CLONE, open_tree, statfs_type
from kernel.operation import Assembly, Operation
from kernel.paths import open_in_root
from kernel.record import Record
from rootfs.binds import clone_device
from rootfs.filesystems import Filesystem
from rootfs.idmap import IdMaps, outside
from rootfs.place import attach_and_close, real_directory, target_directory, target_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ioctl_tty(2)
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCSWINSZ = 0x5414
_DEVPTS_SUPER_MAGIC = 0x1CD1

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class Device(Record):
    """A device in the container. `type` is c, u, b or p as in the OCI runtime-spec."""

    path: str
    type: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


DEFAULT_DEVICES = (
    Device("/dev/null", "c", 1, 3),
    Device("/dev/zero", "c", 1, 5),
    Device("/dev/full", "c", 1, 7),
    Device("/dev/random", "c", 1, 8),
    Device("/dev/urandom", "c", 1, 9),
    Device("/dev/tty", "c", 5, 0),
)

# Where more is mounted as a rule. To make them here is cheaper than to find them missing.
_DIRECTORIES = ("pts", "shm", "mqueue")

_PTMX = "pts/ptmx"
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
_KCORE = "/proc/kcore"


class Dev(Filesystem):
    """A fresh tmpfs on /dev with `devices` and the usual links.

    Devices are made by mknod(2); where that is not permitted, the host's own are bind-mounted, after a look at what
    their descriptors are. With `pinned`, PrepareDev has made all of it.
    """

    fstype: ClassVar[str] = "tmpfs"

    destination: str = "/dev"
    attributes: int = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
    data: tuple[str, ...] = ("mode=755", "size=65536k")
    devices: tuple[Device, ...] = DEFAULT_DEVICES
    pinned: str = ""

    def describe(self) -> str:
        if self.pinned:
            return f"put {self.pinned} -> {self.destination}"
        return f"{super().describe()} with {', '.join(device.path for device in self.devices)}"

    def target(self, root: int) -> int:
        return real_directory(root, self.destination)

    def execute(self, assembly: Assembly) -> None:
        if self.pinned:
            attach_and_close(assembly.fds.pop(self.pinned), self.target(assembly.root))
            return
        mount = self.mount(assembly)
        try:
            self.furnish(mount)
        finally:
            os.close(mount)

    def furnish(self, mount: int) -> None:
        """Make what is in it, behind descriptor `mount`."""
        before = os.umask(0)
        try:
            for name in _DIRECTORIES:
                os.mkdir(name, 0o755, dir_fd=mount)
            for device in self.devices:
                make_device(device, mount, device.path.removeprefix("/dev/"))
            _link(mount)
        finally:
            os.umask(before)


class PrepareDev(Operation):
    """For the creating process: `dev` as a detached mount, left in the assembly's descriptors as `pinned`.

    A user namespace may not make devices (user_namespaces(7)), and the host has none of its own for those that are
    named or owned otherwise in the container. Everything belongs to the users of the container, which `ids` maps.
    """

    dev: Dev
    pinned: str
    ids: IdMaps

    def describe(self) -> str:
        return f"prepare {self.dev.describe()} with ids {self.ids.shown()}"

    def execute(self, assembly: Assembly) -> None:
        mount = self.dev.make(-1, True)
        assembly.fds[self.pinned] = mount
        self.dev.furnish(mount)
        for _, directories, others, fd in os.fwalk(".", dir_fd=mount):
            for name in (*directories, *others):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                owners = outside(self.ids.uids, status.st_uid), outside(self.ids.gids, status.st_gid)
                os.chown(name, *owners, dir_fd=fd, follow_symlinks=False)
        os.chown(".", outside(self.ids.uids, 0), outside(self.ids.gids, 0), dir_fd=mount)

    def undo(self, assembly: Assembly) -> None:
        mount = assembly.fds.pop(self.pinned, -1)
        if mount >= 0:
            os.close(mount)


class Devices(Operation):
    """Devices at any other place in the root, after all mounts.

    With `host_dev` /dev is the host's own: what is asked for below it has to be there already.
    """

    devices: tuple[Device, ...]
    host_dev: bool = False

    def describe(self) -> str:
        return f"make devices {', '.join(device.path for device in self.devices)}"

    def execute(self, assembly: Assembly) -> None:
        before = os.umask(0)
        try:
            for device in self.devices:
                if self.host_dev and device.path.startswith("/dev/"):
                    _check_there(device, assembly.root)
                else:
                    make_device(device, assembly.root, device.path)
        finally:
            os.umask(before)


def make_device(device: Device, directory: int, path: str) -> None:
    """Make the device at `path`, resolved inside `directory`, with exactly its mode; the caller's umask is 0.

    What is there already has to be that device (config-linux.md, "Devices"). Raises ContainerError.
    """
    if device.type not in _TYPES:
        raise BadInput(f"device {device.path!r} of type {device.type!r}", remedy="one of c, u, b and p")
    above, _, name = path.rpartition("/")
    parent = target_directory(directory, above or ".")
    try:
        number = 0 if device.type == "p" else os.makedev(device.major, device.minor)
        try:
            os.mknod(name, _TYPES[device.type] | device.mode, number, dir_fd=parent)
        except FileExistsError:
            _check(device, os.stat(name, dir_fd=parent, follow_symlinks=False))
            return
        except PermissionError:
            _bind(device, number, parent, name)
            return
        if device.uid or device.gid:
            os.chown(name, device.uid, device.gid, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def _check_there(device: Device, root: int) -> None:
    try:
        found = open_in_root(root, device.path, os.O_PATH)
    except SystemCallError as error:
        raise ContainerError(
            f"device {device.path!r}: {error.strerror}, and /dev is a mount of the host's, where nothing is made"
        ) from None
    try:
        _check(device, os.fstat(found))
    finally:
        os.close(found)


def _check(device: Device, status: os.stat_result) -> None:
    number = 0 if device.type == "p" else os.makedev(device.major, device.minor)
    if stat.S_IFMT(status.st_mode) != _TYPES[device.type] or status.st_rdev != number:
        asked = f"{device.type} {device.major}:{device.minor}"
        raise ContainerError(f"device {device.path!r}: there is something else than {asked} already")


def _link(dev: int) -> None:
    """The links that every /dev has. ptmx is always the devpts's own, whatever device was asked for there."""
    try:
        os.unlink("ptmx", dir_fd=dev)
    except FileNotFoundError:
        pass
    os.symlink(_PTMX, "ptmx", dir_fd=dev)
    core = (("core", _KCORE),) if os.path.exists(_KCORE) else ()
    for name, target in (*_LINKS, *core):
        try:
            os.symlink(target, name, dir_fd=dev)
        except FileExistsError:
            pass  # a device of that name was asked for


def _bind(device: Device, number: int, parent: int, name: str) -> None:
    pinned = os.open(device.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(pinned)
        if stat.S_IFMT(status.st_mode) != _TYPES[device.type] or status.st_rdev != number:
            raise HostError(f"{device.path!r} of the host is not device {device.type} {device.major}:{device.minor}")
        attach_and_close(clone_device(pinned), target_file(parent, name))
    finally:
        os.close(pinned)


class Console(Operation):
    """A pseudo-terminal of the container's own devpts, its end for the payload bound on /dev/console.

    Leaves both ends in Assembly.fds: "console" (the master, for whoever attaches) and "terminal".
    """

    width: int = 0
    height: int = 0

    def describe(self) -> str:
        return "open a pseudo-terminal -> /dev/console"

    def execute(self, assembly: Assembly) -> None:
        master, terminal = open_terminal(assembly.root, self.width, self.height)
        assembly.fds["console"] = master
        assembly.fds["terminal"] = terminal
        bound = open_tree(terminal, "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
        attach_and_close(bound, target_file(assembly.root, "/dev/console"))


def open_terminal(root: int, width: int = 0, height: int = 0) -> tuple[int, int]:
    """Descriptors of a new pseudo-terminal's master and of the payload's end, from the devpts below `root`.

    `width` and `height` are in characters, 0 for unset. The payload's end is never looked up by name: it is opened from
    the master (ioctl_tty(2), TIOCGPTPEER), which is checked to be what a devpts has.
    """
    master = open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    try:
        if statfs_type(master) != _DEVPTS_SUPER_MAGIC:
            raise ContainerError("/dev/pts/ptmx in the container is not of a devpts: no terminal can be opened")
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        terminal = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if width or height:
            fcntl.ioctl(terminal, _TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    except BaseException:
        os.close(master)
        raise
    return master, terminal
