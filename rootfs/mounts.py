"""The operations that put a container's root together, and the way from an OCI mount to one of them.

They run in the new process, in its new mount namespace, before pivot_root(2), in this order; PinSource alone is for the
process that creates it:

    MakePropagation    nothing shows outside from here on
    OverlayRoot        or BindRoot: assembly.root
    arrange(...)       the mounts, in the order of the config, devices, the console
    Mask, ReadOnly...
    ReadOnlyRoot       where asked for
    PivotRoot          or MoveRoot

Nothing outlives the mount namespace, so none of them needs an undo; directories made as mount targets stay in the
upper layer.
"""

from __future__ import annotations

from kernel.errors import BadInput, NotSupported
from kernel.mounts import MOUNT_ATTR_RDONLY, MS_PRIVATE, MS_REC
from kernel.names import TMPFS_OPTIONS
from kernel.operation import Operation
from rootfs import options
from rootfs.binds import Bind, Mask, PinSource, ReadOnly, Remount
from rootfs.devices import DEFAULT_DEVICES, Console, Dev, Device, Devices
from rootfs.filesystems import CgroupView, Devpts, Filesystem, Mqueue, OtherFilesystem, Proc, Sysfs, Tmpfs
from rootfs.overlay import OverlayRoot
from rootfs.place import normal
from rootfs.roots import BindRoot, MakePropagation, MoveRoot, PivotRoot, ReadOnlyRoot

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
    "Devices",
    "Devpts",
    "Filesystem",
    "MakePropagation",
    "Mask",
    "MoveRoot",
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
}


def from_oci(
    destination: str,
    fstype: str | None,
    source: str | None,
    mount_options: Iterable[str] = (),
    *,
    devices: tuple[Device, ...] = DEFAULT_DEVICES,
    label: str = "",
) -> Operation:
    """The operation for one entry of `mounts` of an OCI runtime-spec 1.2 config; arrange() makes the whole list.

    A tmpfs on /dev becomes Dev, with `devices`. `label` is the SELinux context of the container's own filesystems.
    Raises BadInput for a destination that is the root itself, or a bind without a source; NotSupported, by name, for an
    option that cannot be honoured.
    """
    path = _destination(destination)
    parsed = options.parse(mount_options)
    if parsed.remount:
        _refuse_bind_words(destination, "remount", parsed)
        data = parsed.data + parsed.superblock
        return Remount(path, parsed.set, parsed.clear, parsed.tree_set, parsed.tree_clear, parsed.propagation, data)
    if parsed.bind or fstype == "bind":
        return _bind(path, source, parsed)
    if not fstype or fstype == "none":
        raise BadInput(f"mount {destination!r}: no type", remedy='give a type, or the option "bind" or "rbind"')
    _refuse_bind_words(destination, f"a {fstype}", parsed)
    return _filesystem(path, fstype, source, parsed, devices, label)


def _bind(destination: str, source: str | None, parsed: options.MountOptions) -> Bind:
    if not source:
        raise BadInput(f"mount {destination!r}: a bind mount without a source")
    # In place of a tmpfs there may be a bind, to which the kernel takes no data (mount(2)): crun and runc pass them by.
    data = tuple(option for option in parsed.data if option.partition("=")[0] not in TMPFS_OPTIONS)
    _refuse(destination, "a bind mount", data + parsed.superblock + (("tmpcopyup",) if parsed.copy_up else ()))
    if options.COPY_SYMLINK in parsed.links and len(parsed.links) > 1:
        other = min(parsed.links - {options.COPY_SYMLINK})
        raise BadInput(f"mount {destination!r}: options {options.COPY_SYMLINK!r} and {other!r} exclude each other")
    if parsed.within and not parsed.within.startswith("/"):
        raise BadInput(f"mount {destination!r}: option 'within={parsed.within}' is not an absolute path")
    if parsed.populate and (parsed.set | parsed.tree_set) & MOUNT_ATTR_RDONLY:
        _refuse(destination, "a read-only bind mount", ("copyup",))
    return Bind(
        source,
        destination,
        parsed.recursive,
        parsed.set,
        parsed.clear,
        parsed.tree_set,
        parsed.tree_clear,
        parsed.propagation or MS_PRIVATE | MS_REC,
        within=parsed.within,
        populate=parsed.populate,
        links=parsed.links,
    )


def _filesystem(
    destination: str,
    fstype: str,
    source: str | None,
    parsed: options.MountOptions,
    devices: tuple[Device, ...],
    label: str,
) -> Filesystem:
    if parsed.copy_up and (fstype != "tmpfs" or destination == "/dev"):
        _refuse(destination, fstype, ("tmpcopyup",))
    # There is nothing below a filesystem that was just made: recursive flags are its own.
    attributes = parsed.set | parsed.tree_set
    data = parsed.data + parsed.superblock
    labelled = (f"context={label}",) if label else ()
    if destination == "/proc" and fstype != "proc":
        raise BadInput(f"mount '/proc': a {fstype} cannot stand in for it")
    if fstype == "tmpfs":
        if destination == "/dev":
            return Dev("/dev", attributes, (data or Dev.data) + labelled, source or "", parsed.propagation, devices)
        return Tmpfs(destination, attributes, data + labelled, source or "", parsed.propagation, parsed.copy_up)
    if fstype in ("cgroup", "cgroup2"):
        # The one hierarchy is the host's: what it is mounted with there holds for all.
        _refuse(destination, "cgroup", data)
        return CgroupView(destination, attributes, (), source or "", parsed.propagation)
    if fstype in _KERNEL_FILESYSTEMS:
        data += labelled if fstype in ("devpts", "mqueue") else ()
        return _KERNEL_FILESYSTEMS[fstype](destination, attributes, data, source or "", parsed.propagation)
    return OtherFilesystem(destination, attributes, data + labelled, source or "", parsed.propagation, fstype)


def _refuse_bind_words(destination: str, what: str, parsed: options.MountOptions) -> None:
    """Options that only a bind can have; the ids of another are those of the container's user namespace already."""
    words = (
        parsed.idmap,
        "copyup" if parsed.populate else "",
        "within" if parsed.within else "",
        *sorted(parsed.links),
    )
    _refuse(destination, what, tuple(filter(None, words)))


def _destination(destination: str) -> str:
    """As an absolute path. A relative one is taken from the root (config.md, "Mounts": it MUST be)."""
    if not destination or "\0" in destination:
        raise BadInput(f"mount destination {destination!r} is not a path")
    path = normal(destination)
    if path == "/":
        raise BadInput(f"mount destination {destination!r} is the root itself")
    return path


def _refuse(destination: str, what: str, refused: tuple[str, ...]) -> None:
    if refused:
        raise NotSupported(f"mount {destination!r}: option {refused[0]!r} has no meaning for {what}")
