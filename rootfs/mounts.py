"""The operations that put a container's root together, and the way from an OCI mount to one of them.

They run in the new process, in its new mount namespace, before pivot_root(2), in this order:

    PinSource...       for binds that stay slave or shared
    MakePropagation    nothing shows outside from here on
    OverlayRoot        or BindRoot: assembly.root
    from_oci(...)...   the mounts, in the order of the config
    Console            with a terminal
    Mask, ReadOnly...
    ReadOnlyRoot       where asked for
    PivotRoot

Nothing outlives the mount namespace, so none of them needs an undo; directories made as mount targets stay in the
upper layer.
"""

from __future__ import annotations

from kernel.errors import BadInput, NotSupported
from kernel.mounts import MOUNT_ATTR_RDONLY, MS_PRIVATE, MS_REC
from kernel.operation import Operation
from rootfs import options
from rootfs.binds import Bind, Mask, PinSource, ReadOnly, Remount
from rootfs.devices import DEFAULT_DEVICES, Console, Dev, Device
from rootfs.filesystems import CgroupView, Devpts, Filesystem, Mqueue, OtherFilesystem, Proc, Sysfs, Tmpfs
from rootfs.overlay import OverlayRoot
from rootfs.roots import BindRoot, MakePropagation, PivotRoot, ReadOnlyRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DEFAULT_DEVICES",
    "Bind",
    "BindRoot",
    "CgroupView",
    "Console",
    "Dev",
    "Device",
    "Devpts",
    "Filesystem",
    "MakePropagation",
    "Mask",
    "Mqueue",
    "OtherFilesystem",
    "OverlayRoot",
    "PinSource",
    "PivotRoot",
    "Proc",
    "ReadOnly",
    "ReadOnlyRoot",
    "Remount",
    "Sysfs",
    "Tmpfs",
    "from_oci",
]

_KERNEL_FILESYSTEMS: dict[str, type[Filesystem]] = {
    "proc": Proc,
    "sysfs": Sysfs,
    "mqueue": Mqueue,
    "devpts": Devpts,
    "cgroup": CgroupView,
    "cgroup2": CgroupView,
}


def from_oci(
    destination: str,
    fstype: str | None,
    source: str | None,
    mount_options: Iterable[str] = (),
    *,
    devices: tuple[Device, ...] = DEFAULT_DEVICES,
) -> Operation:
    """The operation for one entry of `mounts` of an OCI runtime-spec 1.2 config.

    A tmpfs on /dev becomes Dev, with `devices`. A "cgroup" mount is the v2 hierarchy and read-only, asked for or not.
    Raises BadInput for a destination that is no absolute path without "..", or a bind without a source; NotSupported,
    by name, for an option that cannot be honoured.
    """
    _check_destination(destination)
    parsed = options.parse(mount_options)
    if parsed.remount:
        _refuse(destination, "remount", parsed.data + parsed.superblock)
        return Remount(destination, parsed.set, parsed.clear, parsed.tree_set, parsed.tree_clear, parsed.propagation)
    if parsed.bind or fstype == "bind":
        return _bind(destination, source, parsed)
    if not fstype or fstype == "none":
        raise BadInput(f"mount {destination!r}: no type", remedy='give a type, or the option "bind" or "rbind"')
    return _filesystem(destination, fstype, source, parsed, devices)


def _bind(destination: str, source: str | None, parsed: options.MountOptions) -> Bind:
    if not source:
        raise BadInput(f"mount {destination!r}: a bind mount without a source")
    _refuse(destination, "a bind mount", parsed.data + parsed.superblock + (("tmpcopyup",) if parsed.copy_up else ()))
    return Bind(
        source,
        destination,
        parsed.recursive,
        parsed.set,
        parsed.clear,
        parsed.tree_set,
        parsed.tree_clear,
        parsed.propagation or MS_PRIVATE | MS_REC,
    )


def _filesystem(
    destination: str, fstype: str, source: str | None, parsed: options.MountOptions, devices: tuple[Device, ...]
) -> Filesystem:
    if parsed.copy_up and (fstype != "tmpfs" or _normal(destination) == "/dev"):
        _refuse(destination, fstype, ("tmpcopyup",))
    # There is nothing below a filesystem that was just made: recursive flags are its own.
    attributes = parsed.set | parsed.tree_set
    data = parsed.data + parsed.superblock
    if fstype == "tmpfs":
        if _normal(destination) == "/dev":
            return Dev("/dev", attributes, data or Dev.data, source or "", parsed.propagation, devices)
        return Tmpfs(destination, attributes, data, source or "", parsed.propagation, parsed.copy_up)
    if fstype in _KERNEL_FILESYSTEMS:
        made = _KERNEL_FILESYSTEMS[fstype](destination, attributes, data, source or "", parsed.propagation)
        return _view(made, parsed) if isinstance(made, CgroupView) else made
    return OtherFilesystem(destination, attributes, data, source or "", parsed.propagation, fstype)


def _view(view: CgroupView, parsed: options.MountOptions) -> CgroupView:
    if (parsed.clear | parsed.tree_clear) & MOUNT_ATTR_RDONLY:
        _refuse(view.destination, "cgroup", ("rw",))
    # Options of a cgroup2 mount are those of the one hierarchy, which is the host's.
    _refuse(view.destination, "cgroup", view.data)
    return view.replace(attributes=view.attributes | MOUNT_ATTR_RDONLY)


def _check_destination(destination: str) -> None:
    if not destination.startswith("/") or "\0" in destination or ".." in destination.split("/"):
        raise BadInput(f"mount destination {destination!r} is not an absolute path without '..'")
    if _normal(destination) == "/":
        raise BadInput("mount destination '/' is the root itself")


def _normal(destination: str) -> str:
    return "/" + "/".join(part for part in destination.split("/") if part not in ("", "."))


def _refuse(destination: str, what: str, refused: tuple[str, ...]) -> None:
    if refused:
        raise NotSupported(f"mount {destination!r}: option {refused[0]!r} has no meaning for {what}")
