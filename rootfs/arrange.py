"""All mounts of a container, in order: what the creating process prepares and what the new one does. Pure."""

from __future__ import annotations

import os

from kernel.errors import BadInput
from kernel.mounts import MOUNT_ATTR_RDONLY, MS_SHARED
from kernel.record import Record
from rootfs import options
from rootfs.binds import Bind, PinSource, follows_source
from rootfs.devices import DEFAULT_DEVICES, Dev, Devices, PrepareDev
from rootfs.filesystems import CgroupView, Mqueue, Proc, Sysfs
from rootfs.idmap import IdMaps
from rootfs.mounts import from_oci
from rootfs.place import normal
from rootfs.roots import BindRoot, ReadOnlyMount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.operation import Operation
    from rootfs.devices import Console, Device


# What a user namespace may not mount anew where the other namespace is not its own; then it shows the host's.
_BORROWED = ((Sysfs, "network", "/sys"), (Mqueue, "ipc", "/dev/mqueue"), (Proc, "pid", "/proc"))


class Entry(Record):
    """One entry of `mounts`; `ids` are its uidMappings and gidMappings."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    ids: IdMaps | None = None


class Surroundings(Record):
    """What mounts depend on beside themselves.

    `bundle` is where relative sources begin. `own` holds the kinds of namespaces that are not the host's, new or
    joined; `user` says whether it has a user namespace, and `ids` how that maps, where it is known. `hierarchy` is the
    host's mount of cgroup v2, `cgroup` the container's directory in it, both "" where there is none. `label` is an
    SELinux context. `elsewhere` says that its mount namespace was there before: sources are not to be looked for in it.
    """

    bundle: str
    own: frozenset[str] = frozenset({"mount", "pid", "network", "ipc", "cgroup"})
    user: bool = False
    elsewhere: bool = False
    ids: IdMaps | None = None
    devices: tuple[Device, ...] = DEFAULT_DEVICES
    console: Console | None = None
    hierarchy: str = ""
    cgroup: str = ""
    label: str = ""


class Arranged(Record):
    """`before` is for the creating process, `inside` for the new one."""

    before: tuple[Operation, ...]
    inside: tuple[Operation, ...]


def arrange(entries: Iterable[Entry], around: Surroundings, root: BindRoot | None = None) -> Arranged:
    """The operations for `entries`, the devices and the console; `root`, where given, is among them as the first.

    There is always a /dev of its own, unless the config mounts something else there (CVE-2026-88264: without one the
    image's would be used). Raises what from_oci() raises.
    """
    before: list[Operation] = []
    inside: list[Operation] = []
    if root is not None:
        if around.user or around.elsewhere:
            before.append(PinSource(root.path, "root"))
            root = root.replace(pinned="root")
        inside.append(root)
    made = [_one(number, entry, around, before) for number, entry in enumerate(entries)]
    inside += _with_devices(made, around, before)
    return Arranged(tuple(before), tuple(inside))


def _one(number: int, entry: Entry, around: Surroundings, before: list[Operation]) -> Operation:
    operation = from_oci(entry.destination, entry.type, entry.source, entry.options, label=around.label)
    if isinstance(operation, Bind):
        return _bind(number, entry, operation, around, before)
    if entry.ids:
        raise BadInput(f"mounts[{number}]: uidMappings and gidMappings are for bind mounts")
    if isinstance(operation, CgroupView):
        if "cgroup" not in around.own and around.hierarchy:
            return operation.replace(host=around.hierarchy)
        return operation.replace(otherwise=around.cgroup)
    for kind, namespace, path in _BORROWED:
        if not around.user or not isinstance(operation, kind):
            continue
        if namespace not in around.own:
            return operation.replace(host=path)
        if kind is not Proc:
            # A namespace that was joined may belong to another user namespace. (The host's processes are no stand-in.)
            return operation.replace(otherwise=path)
    return operation


def _bind(number: int, entry: Entry, bind: Bind, around: Surroundings, before: list[Operation]) -> Bind:
    if not bind.within:
        bind = bind.replace(source=os.path.join(around.bundle, bind.source))
    ids, recursive = _ids(number, entry, around)
    if not (ids or around.user or around.elsewhere or bind.propagation & MS_SHARED):
        return bind
    pinned = f"mounts[{number}]"
    follow = follows_source(bind.links)
    before.append(PinSource(bind.source, pinned, bind.recursive, bind.within, ids, recursive, bind.destination, follow))
    return bind.replace(pinned=pinned)


def _ids(number: int, entry: Entry, around: Surroundings) -> tuple[IdMaps | None, bool]:
    option = options.parse(entry.options).idmap
    ids = entry.ids
    if option:
        ids = options.id_ranges(option, around.ids) or ids or around.ids
        if ids is None:
            raise BadInput(f"mounts[{number}]: option {option!r} without mappings, in a container without any")
    return ids, option.startswith("r")


def _with_devices(made: list[Operation], around: Surroundings, before: list[Operation]) -> list[Operation]:
    covers = [normal(getattr(operation, "destination", "/")) for operation in made]
    devices = tuple(device.replace(path=normal(device.path)) for device in around.devices)
    index = covers.index("/dev") if "/dev" in covers else -1
    if index >= 0 and not isinstance(made[index], Dev):
        # The host's, or a filesystem that brings its own devices.
        defaults = {device.path for device in DEFAULT_DEVICES}
        rest = tuple(device for device in devices if device.path not in defaults)
        return [*made, *([Devices(rest, host_dev=True)] if rest else []), *_console(around)]
    # A device below another mount would be hidden by it, so it is made in it.
    hiding = tuple(path + "/" for path in covers if path.startswith("/dev/"))
    first = tuple(
        device for device in devices if device.path.startswith("/dev/") and not device.path.startswith(hiding)
    )
    rest = tuple(device for device in devices if device not in first)
    dev = made[index] if index >= 0 else Dev(data=(*Dev.data, *((f"context={around.label}",) if around.label else ())))
    assert isinstance(dev, Dev)
    read_only = dev.attributes & MOUNT_ATTR_RDONLY
    dev = dev.replace(devices=first, attributes=dev.attributes & ~MOUNT_ATTR_RDONLY)
    if around.user and around.ids and not set(first) <= set(DEFAULT_DEVICES):
        before.append(PrepareDev(dev, "/dev", around.ids))
        dev = dev.replace(pinned="/dev")
    arranged = [*made[:index], dev, *made[index + 1 :]] if index >= 0 else [dev, *made]
    if rest:
        arranged.append(Devices(rest))
    return [*arranged, *_console(around), *([ReadOnlyMount("/dev")] if read_only else [])]


def _console(around: Surroundings) -> list[Operation]:
    return [around.console] if around.console else []
