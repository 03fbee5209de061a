"""The mounts of a plan: from the description's words to those of rootfs/. Pure, as plan is."""

from __future__ import annotations

import os

from kernel import mounts as flags
from kernel.errors import BadInput
from rootfs import mounts
from rootfs.arrange import Entry, Surroundings, arrange
from rootfs.filesystems import NeedLabels
from rootfs.idmap import IdMaps
from rootfs.mapped_overlay import PrepareOverlay
from rootfs.roots import TakeRoot
from runtime import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kernel.operation import Operation

_PROPAGATION = {
    "private": flags.MS_PRIVATE,
    "slave": flags.MS_SLAVE,
    "shared": flags.MS_SHARED,
    "unbindable": flags.MS_UNBINDABLE,
}


def filesystem(
    config: spec.Config, linux: spec.Linux, bundle: str, *, cgroup: str, hierarchy: str
) -> tuple[list[Operation], list[Operation]]:
    """What the creating process prepares, and what the new one does up to its own /proc, /dev and console.

    `cgroup` is the container's directory and `hierarchy` the mount it is in.
    """
    remaining = list(config.mounts)
    root = _root(config, linux, bundle, remaining)
    process = config.process
    console = None
    if process is not None and process.terminal:
        size = process.console_size or spec.ConsoleSize(0, 0)
        console = mounts.Console(size.width, size.height)
    around = Surroundings(
        bundle,
        own=frozenset(namespace.type for namespace in linux.namespaces),
        user=any(namespace.type == "user" for namespace in linux.namespaces),
        elsewhere=any(namespace.type == "mount" and namespace.path for namespace in linux.namespaces),
        ids=id_maps(linux.uid_mappings, linux.gid_mappings),
        devices=_devices(linux),
        console=console,
        hierarchy=hierarchy,
        cgroup=cgroup,
        label=linux.mount_label,
    )
    entries = [
        Entry(
            mount.destination,
            mount.type,
            mount.source,
            tuple(mount.options),
            id_maps(mount.uid_mappings, mount.gid_mappings),
        )
        for mount in remaining
    ]
    bound = root if isinstance(root, mounts.BindRoot) else None
    made = arrange(entries, around, bound)
    before = [*([NeedLabels(linux.mount_label)] if linux.mount_label else []), *made.before]
    if isinstance(root, mounts.OverlayRoot) and (around.user or around.elsewhere):
        first = config.mounts[0]
        before.append(PrepareOverlay(root, "root", id_maps(first.uid_mappings, first.gid_mappings)))
        root = TakeRoot("root")
    # A slave tree still sees what the host unmounts, so that the container never pins the host's mounts.
    inside = [mounts.MakePropagation(), *([] if bound else [root]), *made.inside]
    return before, inside


def propagation(word: str) -> int:
    """`rootfsPropagation` as mount(2) has it; 0 for nothing."""
    if not word:
        return 0
    recursive = flags.MS_REC if word.startswith("r") else 0
    return _PROPAGATION[word.removeprefix("r")] | recursive


def id_maps(uids: list[spec.IDMapping], gids: list[spec.IDMapping]) -> IdMaps | None:
    """Mappings as rootfs/ has them; None for none."""
    if not uids and not gids:
        return None
    rows = [tuple((row.container_id, row.host_id, row.size) for row in ranges) for ranges in (uids, gids)]
    return IdMaps(rows[0], rows[1])


def _root(config: spec.Config, linux: spec.Linux, bundle: str, remaining: list[spec.Mount]) -> Operation:
    """The root's operation; a root that is the first mount is taken off the remaining ones."""
    if remaining and remaining[0].destination == "/" and remaining[0].type == "overlay":
        options = dict(option.partition("=")[::2] for option in remaining.pop(0).options)
        return mounts.OverlayRoot(
            tuple(options["lowerdir"].split(":")), options.get("upperdir", ""), options.get("workdir", "")
        )
    if config.root is None:
        raise BadInput("root: missing (a root.path, or a first mount of type overlay at /)")
    path = os.path.join(bundle, config.root.path)
    # Slave: what the host mounts in it later is to arrive (config-linux.md, "Rootfs Mount Propagation").
    if linux.rootfs_propagation.removeprefix("r") == "slave":
        return mounts.BindRoot(path, flags.MS_SLAVE | flags.MS_REC)
    return mounts.BindRoot(path)


def _devices(linux: spec.Linux) -> tuple[mounts.Device, ...]:
    """The devices that every container has (config-linux.md, "Default Devices") and those asked for."""
    devices = {device.path: device for device in mounts.DEFAULT_DEVICES}
    for asked in linux.devices:
        path = os.path.normpath(asked.path)
        # The type is there beside the mode, which in Go carries both.
        mode = 0o666 if asked.file_mode is None else asked.file_mode & 0o7777
        devices[path] = mounts.Device(path, asked.type, asked.major, asked.minor, mode, asked.uid or 0, asked.gid or 0)
    return tuple(devices.values())
