"""From the container description to the list of operations. Pure: what is built here is run elsewhere.

The order is the one the kernel leaves possible: limits before the process exists, namespaces before what is mounted in
them, mounts in the description's order, masks after all mounts, the root's own flags last, then pivot_root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cgroups.cgroup import Cgroup
from cgroups.controllers import Limits
from kernel import mounts as flags
from kernel.errors import BadInput, NotSupported
from kernel.operation import Operation
from rootfs import mounts
from runtime import spec
from runtime.operations import (
    NAMESPACE_FLAGS,
    CreateCgroup,
    JoinNamespace,
    NewCgroupNamespace,
    SetHostname,
    SetOomScoreAdj,
    SetSysctl,
)

_PROPAGATION = {
    "private": flags.MS_PRIVATE,
    "slave": flags.MS_SLAVE,
    "shared": flags.MS_SHARED,
    "unbindable": flags.MS_UNBINDABLE,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How a container is made.

    `parent` is executed, and on failure undone, by the creating process. `clone_flags` are the namespaces that clone3
    makes and `pid_namespace` the one it makes it in, if that is joined. `child` is executed in the new process.
    """

    parent: tuple[Operation, ...]
    clone_flags: int
    pid_namespace: str | None
    child: tuple[Operation, ...]

    def describe(self) -> Iterator[str]:
        """The whole plan, a line a step."""
        for operation in self.parent:
            yield operation.describe()
        kinds = [kind for kind, flag in NAMESPACE_FLAGS.items() if self.clone_flags & flag]
        yield f"clone3 into the cgroup with new namespaces: {', '.join(kinds)}"
        for operation in self.child:
            yield operation.describe()


def build(config: spec.Config, bundle: Path, cgroup: Cgroup, limits: Limits) -> Plan:
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
        parent=(CreateCgroup(cgroup, limits),),
        clone_flags=clone_flags,
        pid_namespace=joined.get("pid"),
        child=tuple(_child(config, linux, bundle, new, joined)),
    )


def _child(
    config: spec.Config, linux: spec.Linux, bundle: Path, new: set[str], joined: dict[str, str]
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
    yield mounts.PivotRoot()


def _filesystem(config: spec.Config, linux: spec.Linux, bundle: Path) -> Iterator[Operation]:
    # A slave tree still sees what the host unmounts, so that the container never pins the host's mounts.
    yield mounts.MakePropagation(flags.MS_REC | _propagation(linux.rootfs_propagation or "rslave"))
    remaining = list(config.mounts)
    if remaining and remaining[0].destination == "/":
        yield _overlay_root(remaining.pop(0))
    elif config.root is not None:
        yield mounts.BindRoot(os.path.join(bundle, config.root.path), readonly=False)
    else:
        raise BadInput("root: missing (a root.path, or a first mount of type overlay at /)")
    for mount in remaining:
        yield mounts.from_oci(mount.destination, mount.type, mount.source, tuple(mount.options))
    if any(mount.destination == "/dev" for mount in remaining):
        yield mounts.Dev(tuple((device.path, device.major, device.minor) for device in linux.devices))
    for name, value in linux.sysctl.items():
        yield SetSysctl(name, value)
    for path in linux.readonly_paths:
        yield mounts.ReadOnly(path)
    for path in linux.masked_paths:
        yield mounts.Mask(path)
    if config.root is not None and config.root.readonly:
        yield mounts.ReadOnlyRoot()


def _propagation(word: str) -> int:
    return _PROPAGATION[word.removeprefix("r")]


def _overlay_root(mount: spec.Mount) -> Operation:
    options = dict(option.partition("=")[::2] for option in mount.options)
    return mounts.OverlayRoot(
        lowers=tuple(options["lowerdir"].split(":")),
        upper=options.get("upperdir", ""),
        work=options.get("workdir", ""),
        readonly=False,
    )
