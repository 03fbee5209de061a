"""From the container description to the list of operations. Pure: what is built here is run elsewhere.

The order is the one the kernel leaves possible: limits before the process exists, namespaces before what is mounted in
them, mounts in the description's order, masks after all mounts, the root's own flags last, then pivot_root.
"""

from __future__ import annotations

from kernel.record import Record
from rootfs import mounts
from runtime import plan_process, spec
from runtime.attributes import JoinSessionKeyring
from runtime.limits import device_rules
from runtime.operations import (
    NAMESPACE_FLAGS,
    AskParent,
    CreateCgroup,
    JoinNamespace,
    NewCgroupNamespace,
    RaiseLoopback,
    RestrictDevices,
    SetHostname,
    SetSysctl,
    StartScope,
)
from runtime.ownership import OwnCgroup, host_uid, wants_cgroup
from runtime.plan_mounts import filesystem, id_maps, propagation
from runtime.user_namespace import (
    BecomeRoot,
    EnterTimeNamespace,
    NewIpcNamespace,
    NewTimeNamespace,
    SetTimeOffsets,
    WriteIdMaps,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgroups.cgroup import Cgroup
    from cgroups.controllers import Limits
    from cgroups.systemd import Scope
    from kernel.operation import Operation
    from runtime.hooks import Subject


# What is asked of the creating process.
_USER, _CLOCKS = "user namespace", "clocks"


class Plan(Record):
    """How a container is made.

    `parent` is executed, and on failure undone, by the creating process. `clone_flags` are the namespaces that clone3
    makes and `pid_namespace` the one it makes it in, if that is joined. `child` is executed in the new process, and
    where it comes to an `AskParent`, the operations of that name in `asked` are executed, and undone, by the parent.
    `joined_first` are namespaces (kind, path) that the new process is in from the beginning, the user's among them.
    """

    parent: tuple[Operation, ...]
    clone_flags: int
    pid_namespace: str | None
    child: tuple[Operation, ...]
    asked: dict[str, tuple[Operation, ...]] = {}
    joined_first: tuple[tuple[str, str], ...] = ()

    def describe(self) -> Iterator[str]:
        """The whole plan, a line a step."""
        for operation in self.parent:
            yield operation.describe()
        for kind, path in self.joined_first:
            yield f"join {kind} namespace {path}"
        kinds = [kind for kind, flag in NAMESPACE_FLAGS.items() if self.clone_flags & flag]
        yield f"clone3 into the cgroup with new namespaces: {', '.join(kinds)}"
        for operation in self.child:
            yield operation.describe()
            if isinstance(operation, AskParent):
                for step in self.asked[operation.what]:
                    yield f"  {step.describe()}"


def build(
    config: spec.Config,
    bundle: str,
    cgroup: Cgroup | None,
    limits: Limits,
    hierarchy: str = "",
    scope: Scope | None = None,
    *,
    container_id: str = "",
    keyring: str = "",
    pivot: bool = True,
) -> Plan:
    """The plan for `config`, which `spec.check` has accepted.

    `limits` are those the host can set, `hierarchy` is where it has cgroup v2 mounted. With a `scope` systemd makes the
    cgroup, around the new process, which asks for it before all else. `keyring` is the name of the container's session
    keyring, "" for the one of whoever creates it. Without `pivot` the root is changed by chroot(2).
    """
    linux = config.linux or spec.Linux()
    new = {namespace.type for namespace in linux.namespaces if not namespace.path}
    joined = {namespace.type: namespace.path for namespace in linux.namespaces if namespace.path}
    subject = plan_process.subject_of(config, container_id, bundle)
    clone_flags = 0
    # The rest has to wait: for the cgroup that is to be its root, for offsets that are fixed once it is entered, for
    # the root of the user namespace that is to own it.
    later = {"cgroup", "time"} | ({"ipc"} if "user" in new else set())
    for kind in new - later:
        clone_flags |= NAMESPACE_FLAGS[kind]
    first: tuple[tuple[str, str], ...] = ()
    if joined and ("user" in new or "user" in joined):
        first = tuple(sorted(joined.items(), key=lambda item: item[0] == "user"))
        joined = {}
    before, inside = filesystem(config, linux, bundle, cgroup=cgroup.path if cgroup else "", hierarchy=hierarchy)
    placed = list(_cgroup(cgroup, limits, config, hierarchy, scope)) if cgroup else []
    asked = [("scope", placed if scope else []), *_asked(config, linux)]
    child = tuple(_child(config, linux, inside, new, joined, subject, keyring, pivot))
    return Plan(
        parent=(*(placed if scope is None else ()), *before),
        clone_flags=clone_flags,
        pid_namespace=joined.get("pid"),
        child=(AskParent("scope"), *child) if scope else child,
        asked={name: tuple(operations) for name, operations in asked if operations}
        | plan_process.asked(config, subject),
        joined_first=first,
    )


def _cgroup(
    cgroup: Cgroup, limits: Limits, config: spec.Config, hierarchy: str, scope: Scope | None
) -> Iterator[Operation]:
    linux = config.linux or spec.Linux()
    yield StartScope(scope, cgroup, limits, hierarchy) if scope else CreateCgroup(cgroup, limits)
    owner = host_uid(linux, config.process.user.uid if config.process else 0)
    if owner is not None and wants_cgroup(config):
        yield OwnCgroup(cgroup, owner)
    if linux.resources and linux.resources.devices:
        yield RestrictDevices(cgroup, device_rules(linux.resources))


def _asked(config: spec.Config, linux: spec.Linux) -> Iterator[tuple[str, list[Operation]]]:
    """What the creating process does when the new one asks: it has the privileges of the host."""
    users = [namespace for namespace in linux.namespaces if namespace.type == "user"]
    steps: list[Operation] = []
    maps = id_maps(linux.uid_mappings, linux.gid_mappings)
    if users and not users[0].path and maps:
        steps.append(WriteIdMaps(maps))
    yield _USER, steps
    offsets = tuple((clock, offset.secs, offset.nanosecs) for clock, offset in linux.time_offsets.items())
    yield _CLOCKS, [SetTimeOffsets(offsets)] if offsets else []


def _child(
    config: spec.Config,
    linux: spec.Linux,
    inside: list[Operation],
    new: set[str],
    joined: dict[str, str],
    subject: Subject | None,
    keyring: str,
    pivot: bool,
) -> Iterator[Operation]:
    yield from plan_process.first(config)
    asked = dict(_asked(config, linux))
    if any(namespace.type == "user" for namespace in linux.namespaces):
        if asked[_USER]:
            yield AskParent(_USER)
        yield BecomeRoot()
        if {"user", "ipc"} <= new:
            yield NewIpcNamespace()
    if keyring:
        yield JoinSessionKeyring(keyring, any(namespace.type == "user" for namespace in linux.namespaces))
    # The mount namespace last: the paths of the others are those of the runtime's.
    for kind in ("cgroup", "network", "ipc", "uts", "time", "mount"):
        if kind in joined:
            yield JoinNamespace(kind, joined[kind])
    if "time" in new:
        yield NewTimeNamespace()
        if asked[_CLOCKS]:
            yield AskParent(_CLOCKS)
        yield EnterTimeNamespace()
    if "cgroup" in new:
        yield NewCgroupNamespace()
    if "network" in new:
        yield RaiseLoopback()
    if config.hostname or config.domainname:
        yield SetHostname(config.hostname, config.domainname)
    yield from map(plan_process.root_for_hooks, inside) if subject else inside
    yield from plan_process.before_pivot(config, subject)
    for name, value in linux.sysctl.items():
        yield SetSysctl(name, value)
    for path in linux.readonly_paths:
        yield mounts.ReadOnly(path)
    for path in linux.masked_paths:
        yield mounts.Mask(path)
    if config.root is not None and config.root.readonly:
        yield mounts.ReadOnlyRoot()
    yield (mounts.PivotRoot if pivot else mounts.MoveRoot)(propagation(linux.rootfs_propagation))
    yield from plan_process.last(config)
