"""A pod from the options of `rawpod run`, so that what is run by hand goes the way of every pod."""

from __future__ import annotations

from collections.abc import Sequence

from kernel.errors import BadInput
from runtime.pod import annotations as pod_annotations
from runtime.pod import defaults, users
from runtime.pod.faults import Fault, Path, shown
from runtime.pod.objects import (
    Container,
    ContainerPort,
    EnvVar,
    HostPathVolumeSource,
    ObjectMeta,
    Pod,
    PodSecurityContext,
    PodSpec,
    Quantity,
    ResourceRequirements,
    SeccompProfile,
    SecurityContext,
    Volume,
    VolumeMount,
)
from runtime.pod.validate import validate

_OPTIONS = {
    "image": "IMAGE",
    "command": "COMMAND",
    "args": "COMMAND",
    "memory": "--memory",
    "cpu": "--cpus",
    "hostname": "--hostname",
    "workingDir": "--workdir",
    "env": "--env",
    "ports": "--publish",
    "volumes": "--volume",
    "volumeMounts": "--volume",
    "securityContext": "--user",
    pod_annotations.PIDS_LIMIT: "--pids",
    pod_annotations.NETWORK: "--network",
    "hostUsers": "--userns",
    pod_annotations.USER: "--user",
    pod_annotations.STOP_SIGNAL: "--stop-signal",
    "name": "--name",
}

_BINARY = {"b": "", "k": "Ki", "m": "Mi", "g": "Gi", "t": "Ti"}


def pod_from_run_options(
    *,
    name: str,
    image: str,
    command: Sequence[str] = (),
    memory: str | None = None,
    cpus: str | None = None,
    pids: int | None = None,
    volumes: Sequence[str] = (),
    env: Sequence[str] = (),
    ports: Sequence[str] = (),
    workdir: str | None = None,
    user: str | None = None,
    entrypoint: str | None = None,
    stop_signal: str | None = None,
    healthcheck: bool = True,
    network: str = "pod",
    userns: str = "host",
    unconfined: bool = False,
    no_new_privileges: bool = True,
    hostname: str | None = None,
    stdin: bool = False,
    tty: bool = False,
    restart_policy: str = "Never",
) -> Pod:
    """A pod with one container, named as the pod; raises BadInput with a line for each faulty option.

    `command` replaces the image's cmd and keeps its entrypoint; an `entrypoint` replaces both, "" takes them away.
    `volumes` are SRC:DST[:ro|rw], `env` NAME=VALUE, `ports` [IP:]PORT:CONTAINER_PORT[/tcp|/udp],
    `user` USER[:GROUP] by number or name, `network` "pod", "host" or
    "none", `userns` "host" or "auto". `memory` may be written as Docker does, whose 64m and 64M are both 64 MiB, or as
    Kubernetes does (64Mi). `unconfined` leaves out the seccomp filter.
    With `healthcheck` that of the image is run.
    """
    marks: dict[str, str] = {}
    if pids is not None:
        marks[pod_annotations.PIDS_LIMIT] = str(pids)
    if network not in ("pod", "host", "none"):
        raise BadInput(f"--network: unknown network {shown(network)}", remedy="pod, host or none")
    if userns not in ("host", "auto"):
        raise BadInput(f"--userns: unknown user namespace {shown(userns)}", remedy="host or auto")
    if healthcheck:
        marks[pod_annotations.HEALTHCHECK] = "image"
    if stop_signal is not None:
        marks[pod_annotations.STOP_SIGNAL] = stop_signal
    if network == "none":
        marks[pod_annotations.NETWORK] = network
    limits = {"memory": Quantity(_memory(memory or "")), "cpu": Quantity(cpus or "")}
    limits = {kind: amount for kind, amount in limits.items() if amount}
    if ports and network != "pod":
        raise BadInput(f"--publish: a container with --network {network} has no ports of its own to publish")
    mounts = [_volume(index, text) for index, text in enumerate(volumes)]
    program, args = _command(entrypoint, command)
    container = Container(
        name=name,
        image=image,
        image_pull_policy="Never",  # whoever runs it has brought it
        command=program,
        args=args,
        working_dir=workdir or "",
        ports=[_port(text) for text in ports],
        env=[_variable(text) for text in env],
        resources=ResourceRequirements(limits=limits) if limits else None,
        volume_mounts=[mount for _, mount in mounts],
        stdin=stdin,
        tty=tty,
        security_context=_security(unconfined, no_new_privileges),
    )
    pod = Pod(
        metadata=ObjectMeta(name=name, annotations=marks),
        spec=PodSpec(
            containers=[container],
            volumes=[volume for volume, _ in mounts],
            restart_policy=restart_policy,
            hostname=hostname or "",
            host_network=network == "host",
            host_users=False if userns == "auto" else None,
        ),
    )
    _set_user(pod, user)
    if faults := validate(pod):
        raise BadInput("\n".join(f"{_option(fault.path)}: {fault.message}" for fault in _distinct(faults)))
    defaults.apply(pod)
    return pod


def _command(entrypoint: str | None, command: Sequence[str]) -> tuple[list[str], list[str]]:
    """Docker's rule in Kubernetes' words: command is the entrypoint, args are what it is given."""
    words = [_literal(word) for word in command]
    if entrypoint == "":
        if not words:
            raise BadInput("--entrypoint: '' leaves nothing to run", remedy="give a COMMAND")
        return words, []
    return [] if entrypoint is None else [_literal(entrypoint)], words


def parse_security_options(options: Sequence[str]) -> tuple[str, bool]:
    """Docker's --security-opt: the seccomp profile ("", "unconfined" or a file's path) and whether privileges stay.

    Raises BadInput for what is not supported.
    """
    seccomp, no_new_privileges = "", True
    for option in options:
        # Docker's older spelling has a colon.
        name, separator, value = option.partition("=" if "=" in option else ":")
        if name == "seccomp" and value:
            seccomp = "" if value in ("default", "builtin") else value
        elif name == "no-new-privileges" and (not separator or value in ("true", "false")):
            no_new_privileges = value != "false"
        else:
            raise BadInput(
                f"--security-opt: {shown(option)} is not supported",
                remedy="seccomp=FILE, seccomp=unconfined, seccomp=default, no-new-privileges=true or false",
            )
    return seccomp, no_new_privileges


def _security(unconfined: bool, no_new_privileges: bool) -> SecurityContext | None:
    if not unconfined and no_new_privileges:
        return None
    return SecurityContext(
        seccomp_profile=SeccompProfile("Unconfined") if unconfined else None,
        allow_privilege_escalation=None if no_new_privileges else True,
    )


def _memory(text: str) -> str:
    """What Docker means by 64m, 64M or 1g, powers of 1024, in Kubernetes' words; anything else is left as it is."""
    number, suffix = text[:-1], text[-1:].lower()
    if suffix in _BINARY and number.isdigit():
        return number + _BINARY[suffix]
    return text


def _set_user(pod: Pod, text: str | None) -> None:
    """Numbers go where Kubernetes has a field for them, names into the annotation."""
    if text is None:
        return
    try:
        user, group = users.parse(text)
    except BadInput as error:
        raise BadInput(f"--user: {error.message}", remedy=error.remedy) from None
    if isinstance(user, int) and not isinstance(group, str):
        pod.spec.security_context = PodSecurityContext(run_as_user=user, run_as_group=group)
    else:
        pod.metadata.annotations[pod_annotations.USER] = text


def _volume(index: int, text: str) -> tuple[Volume, VolumeMount]:
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise BadInput(f"--volume: {shown(text)} is not a volume", remedy="SRC:DST or SRC:DST:ro, both absolute")
    name = f"volume-{index}"
    source = HostPathVolumeSource(path=parts[0])
    return Volume(name=name, host_path=source), VolumeMount(name, parts[1], read_only=parts[2:] == ["ro"])


def _port(text: str) -> ContainerPort:
    """Docker's --publish, but for ranges and for ports of the host that are left to chance."""
    numbers, _, protocol = text.partition("/")
    before, _, inner = numbers.rpartition(":")
    address, colon, outer = before.rpartition(":")
    if colon and not address:
        outer = ""
    if not all(part.isascii() and part.isdecimal() and len(part) <= 5 and int(part) for part in (outer, inner)):
        raise BadInput(f"--publish: {shown(text)} is not a port", remedy="[IP:]PORT:CONTAINER_PORT[/udp]")
    address = address.removeprefix("[").removesuffix("]") if address.startswith("[") else address
    return ContainerPort(container_port=int(inner), host_port=int(outer), host_ip=address, protocol=protocol.upper())


def _variable(text: str) -> EnvVar:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"--env: {shown(name)} has no value", remedy="NAME=VALUE")
    return EnvVar(name=name, value=_literal(value))


def _literal(text: str) -> str:
    """Kubernetes would expand $(NAME); what the shell left of the command line is meant as it is."""
    return text.replace("$", "$$")


def _option(path: Path) -> str:
    return next((_OPTIONS[part] for part in path if isinstance(part, str) and part in _OPTIONS), "option")


def _distinct(faults: list[Fault]) -> list[Fault]:
    """The container is named as the pod: a bad name is one fault."""
    return list(
        {(_option(fault.path), fault.message if fault.path[-1] != "name" else ""): fault for fault in faults}.values()
    )
