"""What must hold for a pod, alone or as a template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kernel.names import MAX_ID
from runtime.pod import annotations as pod_annotations
from runtime.pod import idblocks, names
from runtime.pod.faults import Fault, Path, nearest, show_path, shown
from runtime.pod.objects import (
    Container,
    ObjectMeta,
    PodSecurityContext,
    PodSpec,
)
from runtime.pod.validate_container import apparmor_faults, container_faults, identity_faults, seccomp_faults
from runtime.pod.validate_placement import placement_faults
from runtime.pod.validate_probe import needless_probes
from runtime.pod.validate_volumes import volumes_faults

ANY_ADDRESS = "0.0.0.0"
MAX_GRACE_SECONDS = 2**31 - 1


def pod_faults(spec: PodSpec, meta: ObjectMeta, path: Path, meta_path: Path, *, always: bool) -> Iterator[Fault]:
    """All faults of a pod; with `always`, it is a template and must be restarted for ever."""
    yield from pod_annotations.faults(meta.annotations, spec, (*meta_path, "annotations"))
    yield from _restart(spec.restart_policy, (*path, "restartPolicy"), always)
    yield from _deadline(spec.active_deadline_seconds, (*path, "activeDeadlineSeconds"), always)
    grace = spec.termination_grace_period_seconds
    if grace is not None and not 0 <= grace <= MAX_GRACE_SECONDS:
        yield Fault((*path, "terminationGracePeriodSeconds"), f"{grace} is out of range", f"0 to {MAX_GRACE_SECONDS}")
    yield from placement_faults(spec, path)
    yield from _host_aliases(spec, (*path, "hostAliases"))
    if spec.security_context:
        yield from _security(spec.security_context, spec, (*path, "securityContext"))
    yield from volumes_faults(spec, (*path, "volumes"))
    for index, secret in enumerate(spec.image_pull_secrets):
        if rule := names.subdomain(secret.name):
            wrong = f"{shown(secret.name)} is not an object's name" if secret.name else "required"
            yield Fault((*path, "imagePullSecrets", index, "name"), wrong, rule)
    if not spec.containers:
        yield Fault((*path, "containers"), "required", "at least one container")
    yield from _containers(spec, path)


def _containers(spec: PodSpec, path: Path) -> Iterator[Fault]:
    seen: dict[str, Path] = {}
    for place, container in placed_containers(spec):
        where = (*path, *place)
        if container.name and container.name in seen:
            wrong = f"{shown(container.name)} is also the name of {show_path(seen[container.name])}"
            yield Fault((*where, "name"), wrong, "names must differ")
        seen.setdefault(container.name, place)
        yield from container_faults(container, spec, where)
        yield from _restart_of_container(container, (*where, "restartPolicy"), init=place[0] == "initContainers")
        if place[0] == "initContainers" and not container.is_sidecar:
            yield from needless_probes(container, where)
        yield from _non_root(spec, container, (*where, "securityContext"))
    yield from _host_ports(spec, path)


def placed_containers(spec: PodSpec) -> Iterator[tuple[Path, Container]]:
    """All containers of a pod, init containers first, each with its place below spec."""
    for name, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(containers):
            yield (name, index), container


def _restart_of_container(container: Container, path: Path, *, init: bool) -> Iterator[Fault]:
    policy = container.restart_policy
    if init and policy not in ("", "Always"):
        yield Fault(path, f"{shown(policy)} is not a policy of an init container", "Always, for a sidecar, or none")
    elif not init and policy:
        yield Fault(path, "not supported by rawpod yet for a container that is no init container", "remove it")


def _non_root(spec: PodSpec, container: Container, path: Path) -> Iterator[Fault]:
    """runAsUser and runAsNonRoot may meet only after the pod's and the container's are put together."""
    own, pod = container.security_context, spec.security_context
    if own is None or pod is None:
        return
    user = own.run_as_user if own.run_as_user is not None else pod.run_as_user
    non_root = own.run_as_non_root if own.run_as_non_root is not None else pod.run_as_non_root
    both_in_one = (own.run_as_user is not None) == (own.run_as_non_root is not None)
    if user == 0 and non_root and not both_in_one:
        yield Fault(path, "uid 0 contradicts runAsNonRoot: true", "another runAsUser, or runAsNonRoot: false")


def _host_ports(spec: PodSpec, path: Path) -> Iterator[Fault]:
    earlier: list[HostPort] = []
    for port in host_ports(spec):
        owner = next((other for other in earlier if other.clashes(port)), None)
        if owner:
            wrong = f"host port {port} belongs to container {shown(owner.container)}"
            yield Fault((*path, *port.place), wrong, "another port")
        earlier.append(port)


class HostPort(NamedTuple):
    """A port of the host that a pod takes; `place` leads to it below spec."""

    place: Path
    container: str
    address: str
    port: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.port}/{self.protocol}"

    def clashes(self, other: HostPort) -> bool:
        """Whether both cannot be had: the same port, at the same address or at all of them."""
        same_address = self.address == other.address or ANY_ADDRESS in (self.address, other.address)
        return same_address and (self.port, self.protocol) == (other.port, other.protocol)


def host_ports(spec: PodSpec) -> Iterator[HostPort]:
    """The host's ports that a pod takes; with hostNetwork, those are all its containers' ports."""
    for where, container in placed_containers(spec):
        for number, port in enumerate(container.ports):
            taken = port.host_port or (port.container_port if spec.host_network else 0)
            if taken:
                place = (*where, "ports", number, "hostPort" if port.host_port else "containerPort")
                yield HostPort(place, container.name, port.host_ip or ANY_ADDRESS, taken, port.protocol or "TCP")


def _deadline(seconds: int | None, path: Path, always: bool) -> Iterator[Fault]:
    if seconds is None:
        return
    if always:
        yield Fault(path, "given in a template of replicas", "remove it")
    elif not 1 <= seconds <= MAX_GRACE_SECONDS:
        yield Fault(path, f"{seconds} is out of range", f"1 to {MAX_GRACE_SECONDS}")


def _restart(policy: str, path: Path, always: bool) -> Iterator[Fault]:
    allowed = ("Always",) if always else ("Always", "OnFailure", "Never")
    if policy not in ("", *allowed):
        known = policy in ("OnFailure", "Never")
        wrong = f"{shown(policy)} in a template of replicas" if known else f"unknown policy {shown(policy)}"
        yield Fault(path, wrong, nearest(policy, allowed) if not known else "Always")


def _host_aliases(spec: PodSpec, path: Path) -> Iterator[Fault]:
    for index, alias in enumerate(spec.host_aliases):
        if rule := names.address(alias.ip):
            yield Fault((*path, index, "ip"), f"{shown(alias.ip)} is not an address", rule)
        for number, hostname in enumerate(alias.hostnames):
            if rule := names.subdomain(hostname):
                yield Fault((*path, index, "hostnames", number), f"{shown(hostname)} is not a host's name", rule)


def _security(context: PodSecurityContext, spec: PodSpec, path: Path) -> Iterator[Fault]:
    yield from identity_faults(context.run_as_user, context.run_as_group, context.run_as_non_root, path)
    if context.seccomp_profile:
        yield from seccomp_faults(context.seccomp_profile, (*path, "seccompProfile"))
    if context.app_armor_profile:
        yield from apparmor_faults(context.app_armor_profile, (*path, "appArmorProfile"))
    for field, value, known in (
        ("supplementalGroupsPolicy", context.supplemental_groups_policy, ("Merge", "Strict")),
        ("fsGroupChangePolicy", context.fs_group_change_policy, ("Always", "OnRootMismatch")),
    ):
        if value and value not in known:
            yield Fault((*path, field), f"unknown policy {shown(value)}", nearest(value, known))
    if context.fs_group is not None and not 0 <= context.fs_group <= MAX_ID:
        yield Fault((*path, "fsGroup"), f"{context.fs_group} is not an id", f"0 to {MAX_ID}")
    elif spec.host_users is False and (context.fs_group or 0) >= idblocks.SIZE:
        # It would be an id of the next pod's block.
        wrong = f"{context.fs_group} is none of the ids that a pod with hostUsers: false has"
        yield Fault((*path, "fsGroup"), wrong, f"0 to {idblocks.SIZE - 1}")
    for index, group in enumerate(context.supplemental_groups):
        if not 0 <= group <= MAX_ID:
            yield Fault((*path, "supplementalGroups", index), f"{group} is not an id", f"0 to {MAX_ID}")
    seen: dict[str, int] = {}
    for index, sysctl in enumerate(context.sysctls):
        place = (*path, "sysctls", index)
        name = sysctl.name.replace("/", ".")
        if rule := names.sysctl(sysctl.name):
            yield Fault((*place, "name"), f"{shown(sysctl.name)} is not among the safe kernel parameters", rule)
        elif spec.host_network and name.startswith("net."):
            wrong = f"{shown(sysctl.name)} would change the host's network"
            yield Fault((*place, "name"), wrong, "remove it, or hostNetwork")
        elif spec.host_ipc and not name.startswith("net."):
            wrong = f"{shown(sysctl.name)} would change the host's ipc namespace"
            yield Fault((*place, "name"), wrong, "remove it, or hostIPC")
        if rule := names.sysctl_value(sysctl.value):
            yield Fault((*place, "value"), f"{shown(sysctl.value)} is no value for a kernel parameter", rule)
        if name in seen:
            yield Fault((*place, "name"), f"{shown(name)} is also set by sysctls[{seen[name]}]", "set it once")
        seen.setdefault(name, index)
