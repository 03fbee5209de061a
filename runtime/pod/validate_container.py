"""What must hold for one container of a pod."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from kernel.errors import BadInput
from kernel.names import CAPABILITIES, MAX_ID
from runtime.pod import environment, names, pullpolicy, quantities
from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.objects import (
    AppArmorProfile,
    Container,
    ContainerPort,
    EnvFromSource,
    EnvVar,
    PodSpec,
    ResourceRequirements,
    SeccompProfile,
    SecurityContext,
)
from runtime.pod.validate_fields import selector_faults
from runtime.pod.validate_lifecycle import termination_faults
from runtime.pod.validate_mounts import absolute_path, mount_faults
from runtime.pod.validate_probe import probes_faults

_CAPABILITY_NAMES = frozenset(name.removeprefix("CAP_") for name in CAPABILITIES)


def container_faults(container: Container, spec: PodSpec, path: Path) -> Iterator[Fault]:
    """All faults of one container, at paths below `path`."""
    if rule := names.label(container.name):
        yield Fault((*path, "name"), f"{shown(container.name)} is not a container's name", rule)
    if not container.image:
        yield Fault((*path, "image"), "required", "the name of an image, as host")
    elif wrong := pullpolicy.image_fault(container.image):
        yield Fault((*path, "image"), wrong, "[REGISTRY/]NAME[:TAG][@DIGEST], in lower case")
    if fault := pullpolicy.policy_fault(container.image_pull_policy):
        yield Fault((*path, "imagePullPolicy"), *fault)
    if container.working_dir:
        yield from absolute_path(container.working_dir, (*path, "workingDir"))
    for name, words in (("command", container.command), ("args", container.args)):
        for index, word in enumerate(words):
            if "\0" in word:
                yield Fault((*path, name, index), "contains a NUL byte", "remove it")
    if container.command and not container.command[0]:
        yield Fault((*path, "command", 0), "empty", "the program to run")
    yield from _ports(container.ports, spec, (*path, "ports"))
    yield from _environment(container, spec, path)
    yield from mount_faults(container.volume_mounts, spec, (*path, "volumeMounts"))
    yield from probes_faults(container, path)
    yield from termination_faults(container, path)
    if container.resources:
        yield from resource_faults(container.resources, (*path, "resources"))
    if container.security_context:
        yield from _security(container.security_context, spec, (*path, "securityContext"))


def _ports(ports: list[ContainerPort], spec: PodSpec, path: Path) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for index, port in enumerate(ports):
        place = (*path, index)
        if port.name:
            if rule := names.port(port.name):
                yield Fault((*place, "name"), f"{shown(port.name)} is not a port's name", rule)
            if port.name in seen:
                wrong = f"{shown(port.name)} is also the name of ports[{seen[port.name]}]"
                yield Fault((*place, "name"), wrong, "names must differ")
            seen.setdefault(port.name, index)
        if not 1 <= port.container_port <= 65535:
            yield Fault((*place, "containerPort"), f"{port.container_port} is not a port", "1 to 65535")
        if not 0 <= port.host_port <= 65535:
            yield Fault((*place, "hostPort"), f"{port.host_port} is not a port", "1 to 65535")
        if spec.host_network and port.host_port not in (0, port.container_port):
            wrong = f"{port.host_port} differs from containerPort {port.container_port} in a pod with hostNetwork"
            yield Fault((*place, "hostPort"), wrong, "the same port, or none")
        if port.protocol == "SCTP":
            yield Fault((*place, "protocol"), "'SCTP' is not supported by rawpod yet", "TCP or UDP")
        elif port.protocol not in ("", "TCP", "UDP"):
            yield Fault((*place, "protocol"), f"unknown protocol {shown(port.protocol)}", "TCP or UDP")
        if port.host_ip and names.address(port.host_ip):
            yield Fault((*place, "hostIP"), f"{shown(port.host_ip)} is not an address", "an address as 127.0.0.1")


def _environment(container: Container, spec: PodSpec, path: Path) -> Iterator[Fault]:
    for index, source in enumerate(container.env_from):
        yield from _env_from(source, (*path, "envFrom", index))
    defined: dict[str, str] = {}
    for index, variable in enumerate(container.env):
        place = (*path, "env", index)
        if rule := names.variable(variable.name):
            wrong = "required" if not variable.name else f"{shown(variable.name)} is not the name of a variable"
            yield Fault((*place, "name"), wrong, rule)
        if "\0" in variable.value:
            yield Fault((*place, "value"), "contains a NUL byte", "remove it")
        if variable.value_from is not None:
            yield from _value_from(variable, spec, place)
            continue
        try:
            defined[variable.name] = environment.expand(variable.value, defined)
        except BadInput as error:
            yield Fault((*place, "value"), error.message, error.remedy or "")


def _env_from(source: EnvFromSource, path: Path) -> Iterator[Fault]:
    if source.prefix and names.variable(source.prefix):
        yield Fault((*path, "prefix"), f"{shown(source.prefix)} cannot begin a variable's name", "letters and digits")
    given = [selector for selector in (source.config_map_ref, source.secret_ref) if selector is not None]
    if len(given) != 1:
        yield Fault(path, "needs exactly one source", "configMapRef or secretRef")
    for name, selector in (("configMapRef", source.config_map_ref), ("secretRef", source.secret_ref)):
        if selector and (rule := names.subdomain(selector.name)):
            yield Fault((*path, name, "name"), f"{shown(selector.name)} is not an object's name", rule)


def _value_from(variable: EnvVar, spec: PodSpec, path: Path) -> Iterator[Fault]:
    origin = variable.value_from
    assert origin is not None
    place = (*path, "valueFrom")
    if variable.value:
        yield Fault(place, "given together with value", "remove one of them")
    sources = (origin.config_map_key_ref, origin.secret_key_ref, origin.field_ref, origin.resource_field_ref)
    if sum(source is not None for source in sources) != 1:
        right = "configMapKeyRef, secretKeyRef, fieldRef or resourceFieldRef"
        yield Fault(place, "needs exactly one source", right)
    for name, selector in (("configMapKeyRef", origin.config_map_key_ref), ("secretKeyRef", origin.secret_key_ref)):
        if selector is None:
            continue
        if rule := names.subdomain(selector.name):
            yield Fault((*place, name, "name"), f"{shown(selector.name)} is not an object's name", rule)
        if rule := names.key(selector.key):
            yield Fault((*place, name, "key"), f"{shown(selector.key)} is not a key", rule)
    if origin.field_ref:
        field = origin.field_ref.field_path
        if not environment.is_field_path(field):
            right = nearest(field, environment.FIELD_PATHS)
            yield Fault((*place, "fieldRef", "fieldPath"), f"unknown field {shown(field)}", right)
        if origin.field_ref.api_version not in ("", "v1"):
            yield Fault((*place, "fieldRef", "apiVersion"), f"unknown {shown(origin.field_ref.api_version)}", "v1")
    if origin.resource_field_ref:
        yield from selector_faults(origin.resource_field_ref, spec, (*place, "resourceFieldRef"))


_READERS: dict[str, Callable[[str], int]] = {"cpu": quantities.cpu_millicores, "memory": quantities.memory_bytes}


def resource_faults(resources: ResourceRequirements, path: Path) -> Iterator[Fault]:
    """Amounts that are none, resources that do not exist, and requests above their limits."""
    amounts: dict[tuple[str, str], int] = {}
    for section, given in (("limits", resources.limits), ("requests", resources.requests)):
        for name, text in given.items():
            place = (*path, section, name)
            if name not in _READERS:
                yield _unknown_resource(name, place)
                continue
            try:
                amounts[section, name] = _READERS[name](text)
            except BadInput as error:
                yield Fault(place, error.message, error.remedy or "")
    for name in _READERS:
        limit, request = amounts.get(("limits", name)), amounts.get(("requests", name))
        if limit is not None and request is not None and request > limit:
            wrong = f"{shown(resources.requests[name])} is more than the limit {shown(resources.limits[name])}"
            yield Fault((*path, "requests", name), wrong, "at most the limit")


def _unknown_resource(name: str, path: Path) -> Fault:
    if name == "ephemeral-storage" or name.startswith("hugepages-") or "/" in name:
        return Fault(path, "not supported by rawpod yet", "cpu or memory")
    return Fault(path, f"unknown resource {shown(name)}", nearest(name, ("cpu", "memory")))


def identity_faults(user: int | None, group: int | None, non_root: bool | None, path: Path) -> Iterator[Fault]:
    """User and group ids of a container's or pod's securityContext."""
    for name, value in (("runAsUser", user), ("runAsGroup", group)):
        if value is not None and not 0 <= value <= MAX_ID:
            yield Fault((*path, name), f"{value} is not an id", f"0 to {MAX_ID}")
    if non_root and user == 0:
        yield Fault((*path, "runAsUser"), "uid 0 contradicts runAsNonRoot: true", "another uid")


_SECCOMP_TYPES = ("RuntimeDefault", "Localhost", "Unconfined")


def seccomp_faults(profile: SeccompProfile, path: Path) -> Iterator[Fault]:
    """Profiles fail closed: what is not understood is refused, never taken for no profile."""
    if profile.type not in _SECCOMP_TYPES:
        wrong = f"unknown profile {shown(profile.type)}" if profile.type else "required"
        yield Fault((*path, "type"), wrong, nearest(profile.type, _SECCOMP_TYPES))
    name, place = profile.localhost_profile, (*path, "localhostProfile")
    if profile.type == "Localhost" and not name:
        yield Fault(place, "required with type Localhost", "the profile's file, below ROOT/seccomp")
    elif profile.type == "Localhost" and (name.startswith("/") or ".." in name.split("/") or "\0" in name):
        yield Fault(place, f"{shown(name)} is no path below ROOT/seccomp", "a relative path without '..'")
    elif profile.type != "Localhost" and name:
        yield Fault(place, "given without type Localhost", "remove it")


def apparmor_faults(profile: AppArmorProfile, path: Path) -> Iterator[Fault]:
    """RuntimeDefault would be a profile of rawpod's own, which there is not: refused rather than taken for none."""
    if profile.type == "RuntimeDefault":
        yield Fault((*path, "type"), "'RuntimeDefault' is not supported by rawpod yet", "Localhost or Unconfined")
    elif profile.type not in ("Localhost", "Unconfined"):
        wrong = f"unknown profile {shown(profile.type)}" if profile.type else "required"
        yield Fault((*path, "type"), wrong, nearest(profile.type, ("Localhost", "Unconfined")))
    name, place = profile.localhost_profile, (*path, "localhostProfile")
    if profile.type == "Localhost" and (not name or name != name.strip() or not name.isprintable()):
        yield Fault(place, f"{shown(name)} is no profile's name" if name else "required", "that of a loaded profile")
    elif profile.type != "Localhost" and name:
        yield Fault(place, "given without type Localhost", "remove it")


def _proc_mount(kind: str, spec: PodSpec, path: Path) -> Iterator[Fault]:
    if kind not in ("", "Default", "Unmasked"):
        yield Fault(path, f"unknown kind {shown(kind)}", nearest(kind, ("Default", "Unmasked")))
    elif kind == "Unmasked" and spec.host_users is not False:
        # Kubernetes' own rule: what is masked is the host's, and its root must not be the container's.
        yield Fault(path, "'Unmasked' in a pod with the host's users", "hostUsers: false, or Default")


def _security(context: SecurityContext, spec: PodSpec, path: Path) -> Iterator[Fault]:
    yield from identity_faults(context.run_as_user, context.run_as_group, context.run_as_non_root, path)
    if context.seccomp_profile:
        yield from seccomp_faults(context.seccomp_profile, (*path, "seccompProfile"))
    if context.app_armor_profile:
        yield from apparmor_faults(context.app_armor_profile, (*path, "appArmorProfile"))
    yield from _proc_mount(context.proc_mount, spec, (*path, "procMount"))
    if not context.capabilities:
        return
    yield from _capabilities("add", context.capabilities.add, (*path, "capabilities", "add"))
    yield from _capabilities("drop", context.capabilities.drop, (*path, "capabilities", "drop"))
    added = {name.removeprefix("CAP_") for name in context.capabilities.add}
    if context.allow_privilege_escalation is False and added & {"ALL", "SYS_ADMIN"}:
        wrong = "false contradicts the capability SYS_ADMIN"
        yield Fault((*path, "allowPrivilegeEscalation"), wrong, "true, or without SYS_ADMIN")


def _capabilities(section: str, given: Collection[str], path: Path) -> Iterator[Fault]:
    for index, name in enumerate(given):
        short = name.removeprefix("CAP_")
        if section == "add" and short == "ALL":
            wrong = f"{shown(name)} is not supported by rawpod yet: it would give up the host"
            yield Fault((*path, index), wrong, "name the capabilities that are needed")
        elif short not in _CAPABILITY_NAMES and name != "ALL":
            right = nearest(short, _CAPABILITY_NAMES)
            right = right if right.startswith("did") else "a name of capabilities(7) without CAP_, as NET_ADMIN"
            yield Fault((*path, index), f"unknown capability {shown(name)}", right)
