"""From the container description to the list of operations. Pure: what is built here is run elsewhere.

The order is the one the kernel leaves possible: limits before the process exists, namespaces before what is mounted in
them, mounts in the description's order, masks after all mounts, the root's own flags last, then pivot_root.
"""

from __future__ import annotations

import os

from kernel import mounts as flags
from kernel.errors import BadInput, NotSupported
from kernel.record import Record
from rootfs import mounts
from runtime import spec
from runtime.limits import device_rules
from runtime.operations import (
    NAMESPACE_FLAGS,
    AskParent,
    CreateCgroup,
    JoinNamespace,
    NewCgroupNamespace,
    RestrictDevices,
    SetHostname,
    SetOomScoreAdj,
    SetSysctl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgroups.cgroup import Cgroup
    from cgroups.controllers import Limits
    from kernel.operation import Operation

_PROPAGATION = {
    "private": flags.MS_PRIVATE,
    "slave": flags.MS_SLAVE,
    "shared": flags.MS_SHARED,
    "unbindable": flags.MS_UNBINDABLE,
}
# Mounts that stay tied to the host's tree.
_TIED = flags.MS_SLAVE | flags.MS_SHARED


class Plan(Record):
    """How a container is made.

    `parent` is executed, and on failure undone, by the creating process. `clone_flags` are the namespaces that clone3
    makes and `pid_namespace` the one it makes it in, if that is joined. `child` is executed in the new process, and
    where it comes to an `AskParent`, the operations of that name in `asked` are executed, and undone, by the parent.
    """

    parent: tuple[Operation, ...]
    clone_flags: int
    pid_namespace: str | None
    child: tuple[Operation, ...]
    asked: dict[str, tuple[Operation, ...]] = {}

    def describe(self) -> Iterator[str]:
        """The whole plan, a line a step."""
        for operation in self.parent:
            yield operation.describe()
        kinds = [kind for kind, flag in NAMESPACE_FLAGS.items() if self.clone_flags & flag]
        yield f"clone3 into the cgroup with new namespaces: {', '.join(kinds)}"
        for operation in self.child:
            yield operation.describe()
            if isinstance(operation, AskParent):
                for step in self.asked[operation.what]:
                    yield f"  {step.describe()}"


def build(config: spec.Config, bundle: str, cgroup: Cgroup | None, limits: Limits) -> Plan:
    """The plan for `config`, which `spec.check` has accepted. `limits` are those the host can set."""
    linux = config.linux or spec.Linux()
    new = {namespace.type for namespace in linux.namespaces if not namespace.path}
    joined = {namespace.type: namespace.path for namespace in linux.namespaces if namespace.path}
    if "mount" not in new:
        raise NotSupported("a container without a mount namespace of its own (linux.namespaces)")
    clone_flags = 0
    for kind in new - {"cgroup"}:
        clone_flags |= NAMESPACE_FLAGS[kind]
    return Plan(
        parent=tuple(_cgroup(cgroup, limits, linux)) if cgroup else (),
        clone_flags=clone_flags,
        pid_namespace=joined.get("pid"),
        child=tuple(_child(config, linux, bundle, new, joined)),
    )


def _cgroup(cgroup: Cgroup, limits: Limits, linux: spec.Linux) -> Iterator[Operation]:
    yield CreateCgroup(cgroup, limits)
    if linux.resources and linux.resources.devices:
        yield RestrictDevices(cgroup, device_rules(linux.resources))


def _child(
    config: spec.Config, linux: spec.Linux, bundle: str, new: set[str], joined: dict[str, str]
) -> Iterator[Operation]:
    process = config.process
    if process is not None and process.oom_score_adj is not None:
        yield SetOomScoreAdj(process.oom_score_adj)
    for kind in ("cgroup", "network", "ipc", "uts"):
        if kind in joined:
            yield JoinNamespace(kind, joined[kind])
    if "cgroup" in new:
        yield NewCgroupNamespace()
    if config.hostname or config.domainname:
        yield SetHostname(config.hostname, config.domainname)
    yield from _filesystem(config, linux, bundle)
    yield mounts.PivotRoot(_propagation(linux.rootfs_propagation))


def _filesystem(config: spec.Config, linux: spec.Linux, bundle: str) -> Iterator[Operation]:
    remaining = list(config.mounts)
    root = _root(config, bundle, remaining)
    devices = _devices(linux)
    made = [
        mounts.from_oci(mount.destination, mount.type, mount.source, mount.options, devices=devices)
        for mount in remaining
    ]
    for operation in made:
        if isinstance(operation, mounts.Bind) and operation.propagation & _TIED:
            yield mounts.PinSource(operation.source, operation.recursive)
    # A slave tree still sees what the host unmounts, so that the container never pins the host's mounts.
    yield mounts.MakePropagation()
    yield root
    yield from made
    process = config.process
    if process is not None and process.terminal:
        size = process.console_size or spec.ConsoleSize(0, 0)
        yield mounts.Console(size.width, size.height)
    for name, value in linux.sysctl.items():
        yield SetSysctl(name, value)
    for path in linux.readonly_paths:
        yield mounts.ReadOnly(path)
    for path in linux.masked_paths:
        yield mounts.Mask(path)
    if config.root is not None and config.root.readonly:
        yield mounts.ReadOnlyRoot()


def _root(config: spec.Config, bundle: str, remaining: list[spec.Mount]) -> Operation:
    """The root's operation; a root that is the first mount is taken off the remaining ones."""
    if remaining and remaining[0].destination == "/" and remaining[0].type == "overlay":
        options = dict(option.partition("=")[::2] for option in remaining.pop(0).options)
        return mounts.OverlayRoot(
            tuple(options["lowerdir"].split(":")), options.get("upperdir", ""), options.get("workdir", "")
        )
    if config.root is None:
        raise BadInput("root: missing (a root.path, or a first mount of type overlay at /)")
    return mounts.BindRoot(os.path.join(bundle, config.root.path))


def _devices(linux: spec.Linux) -> tuple[mounts.Device, ...]:
    """The devices that every container has (config-linux.md, "Default Devices") and those asked for."""
    devices = {device.path: device for device in mounts.DEFAULT_DEVICES}
    for asked in linux.devices:
        mode = 0o666 if asked.file_mode is None else asked.file_mode
        devices[asked.path] = mounts.Device(
            asked.path, asked.type, asked.major, asked.minor, mode, asked.uid or 0, asked.gid or 0
        )
    return tuple(devices.values())


def _propagation(word: str) -> int:
    if not word:
        return 0
    recursive = flags.MS_REC if word.startswith("r") else 0
    return _PROPAGATION[word.removeprefix("r")] | recursive
