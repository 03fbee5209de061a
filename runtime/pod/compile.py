"""From a pod's container to the OCI description of it. Pure: data in, data out.

The defaults are those of a container that may do little: eleven capabilities, no new privileges, a private /dev, kernel
files masked or read-only. What a manifest changes, it changes here and nowhere else.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from cgroups.device_rules import DENY_ALL, STANDARD
from kernel.errors import BadInput
from kernel.record import Record
from rootfs.images.store import Healthcheck
from runtime import spec
from runtime.pod import annotations as pod_annotations
from runtime.pod import environment, idblocks, image_config, quantities, users
from runtime.pod.faults import shown
from runtime.pod.hostnames import kernel_hostname
from runtime.pod.objects import Capabilities, Container, Pod, ResourceRequirements, SecurityContext, VolumeMount
from runtime.pod.signals import signal_number
from runtime.pod.users import Accounts, ResolvedUser
from runtime.pod.validate_mounts import sub_path_fault

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
_MASKED_IN_PROC = "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats"
MASKED_PATHS = (
    *(f"/proc/{name}" for name in _MASKED_IN_PROC.split()),
    "/sys/firmware",
    "/sys/devices/virtual/powercap",  # energy counters leak what others compute (CVE-2020-8694)
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ETC_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_SHM = "/dev/shm"


class RootRefused(BadInput):
    """The user would be root, or may be, and the manifest has runAsNonRoot."""


class ImageView(Record):
    """What the compiler needs of an image.

    `lowers` are its layers, topmost first, `binds` directories of the host that it shows read-only (source,
    destination). The rest is its configuration (OCI image-spec, config.md), with `accounts` to look users up in.
    """

    lowers: tuple[str, ...]
    binds: tuple[tuple[str, str], ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    accounts: Accounts = Accounts()


class Surroundings(Record):
    """What the pod gives to each of its containers.

    `namespaces` goes by OCI type ("network", "ipc", "uts"): a path is joined, "" is made new, and one that is not there
    is the host's. `etc` maps paths in the container (ETC_FILES) to files of the pod. `volumes` maps a volume's name to
    its place on the host, `image_volumes` a directory of the container to the place of what its image wants kept
    there, `shm` is the pod's /dev/shm, shared by its containers; "" gives each one of its own. `termination` is the
    file for the container's last words, "" for none. `ids` is the first id of the host that the pod's user namespace
    maps, None for the host's users, and `mapped` are the volumes whose files have the container's ids on disk,
    `read_only` those that no container writes to. `seccomp` is the
    container's profile, None for no filter.
    """

    upper: str
    work: str
    cgroups_path: str
    namespaces: Mapping[str, str]
    seccomp: spec.Seccomp | None
    etc: Mapping[str, str] = {}
    volumes: Mapping[str, str] = {}
    shm: str = ""
    ids: int | None = None
    mapped: frozenset[str] = frozenset()
    image_volumes: Mapping[str, str] = {}
    read_only: frozenset[str] = frozenset()
    termination: str = ""


def compile_container(
    pod: Pod, container: Container, *, image: ImageView, surroundings: Surroundings, env: Mapping[str, str]
) -> spec.Config:
    """The description of one container; `env` is what environment.resolve gave.

    Raises BadInput where image and manifest do not go together: no command, an unknown user, root against runAsNonRoot.
    """
    context = container.security_context or SecurityContext()
    masked = context.proc_mount != "Unmasked"
    user = resolve_user(pod, container, image)
    variables = _variables(pod, container, image, user, env)
    return spec.Config(
        oci_version=spec.OCI_VERSION,
        root=spec.Root(path="rootfs", readonly=bool(context.read_only_root_filesystem)),
        hostname=kernel_hostname(pod) if surroundings.namespaces.get("uts") == "" else "",
        mounts=_mounts(container, image, surroundings, env),
        process=spec.Process(
            terminal=container.tty,
            user=spec.User(uid=user.uid, gid=user.gid, additional_gids=list(user.groups)),
            args=_args(container, image, variables),
            env=[f"{name}={value}" for name, value in variables.items()],
            cwd=_working_directory(container, image),
            capabilities=capabilities_of(container),
            apparmor_profile=_apparmor_profile(pod, context),
            no_new_privileges=context.allow_privilege_escalation is not True,
        ),
        linux=spec.Linux(
            namespaces=[
                *(spec.Namespace(kind, path) for kind, path in surroundings.namespaces.items()),
                *(spec.Namespace(kind) for kind in _own_namespaces(pod)),
            ],
            uid_mappings=_ids(surroundings),
            gid_mappings=_ids(surroundings),
            cgroups_path=surroundings.cgroups_path,
            resources=_resources(pod, container.resources),
            seccomp=surroundings.seccomp,
            sysctl=_sysctls(pod),
            masked_paths=list(MASKED_PATHS) if masked else [],
            readonly_paths=list(READONLY_PATHS) if masked else [],
        ),
    )


def _own_namespaces(pod: Pod) -> tuple[str, ...]:
    return ("mount", "cgroup") if pod.spec.host_pid else ("pid", "mount", "cgroup")


def resolve_user(pod: Pod, container: Container, image: ImageView) -> ResolvedUser:
    """Container before pod before annotation before image; raises BadInput against runAsNonRoot."""
    own, shared = container.security_context, pod.spec.security_context

    def chosen(name: str) -> int | bool | None:
        value: int | bool | None = getattr(own, name, None)
        return value if value is not None else getattr(shared, name, None)

    number, group = chosen("run_as_user"), chosen("run_as_group")
    text = str(number) if number is not None else pod_annotations.user(pod.metadata.annotations) or image.user
    extra = list(shared.supplemental_groups) if shared else []
    if shared and shared.fs_group is not None:
        extra.append(shared.fs_group)
    strict = shared is not None and shared.supplemental_groups_policy == "Strict"
    user = users.resolve(text, image.accounts, gid=group, extra=extra, strict=strict)
    if chosen("run_as_non_root") and (user.uid == 0 or user.named):
        what = f"user {shown(text)} is a name, which stands for uid {user.uid}" if user.named else "the user is uid 0"
        raise RootRefused(
            f"container {shown(container.name)}: runAsNonRoot, but {what}", remedy="set runAsUser to a number"
        )
    return user


def _apparmor_profile(pod: Pod, own: SecurityContext) -> str:
    """The name of a profile that is loaded, or "" for none; a host without AppArmor refuses the former at the start."""
    shared = pod.spec.security_context
    profile = own.app_armor_profile or (shared.app_armor_profile if shared else None)
    return profile.localhost_profile if profile else ""


def resolve_stop_signal(pod: Pod, container: Container, image: ImageView) -> int:
    """Annotation before image; raises BadInput for a signal that there is not."""
    text = pod_annotations.stop_signal(pod.metadata.annotations)
    return image_config.stop_signal(image.stop_signal, container.image) if text is None else signal_number(text)


def resolve_health(pod: Pod, container: Container, image: ImageView) -> image_config.Health | None:
    """The image's health check, where the pod asks for it; raises BadInput for one that is malformed."""
    check = image.healthcheck
    if check is None or not pod_annotations.obeys_healthcheck(pod.metadata.annotations):
        return None
    return image_config.health(
        check.test,
        container.image,
        interval=check.interval,
        timeout=check.timeout,
        start_period=check.start_period,
        start_interval=check.start_interval,
        retries=check.retries,
    )


def image_volumes(container: Container, image: ImageView) -> list[str]:
    """The directories that the image wants kept outside its layers, the outermost first, but for those that are hidden
    by a volume of the pod. Raises BadInput for one that cannot be."""
    taken = [_normal(mount.mount_path) for mount in container.volume_mounts]
    found = image_config.volumes(image.volumes, container.image)
    kept = [path for path in found if not any(path == hider or path.startswith(f"{hider}/") for hider in taken)]
    return sorted(kept, key=lambda path: (path.count("/"), path))


def _variables(
    pod: Pod, container: Container, image: ImageView, user: ResolvedUser, env: Mapping[str, str]
) -> dict[str, str]:
    variables = {"PATH": DEFAULT_PATH, "HOSTNAME": kernel_hostname(pod)}
    if container.tty:
        variables["TERM"] = "xterm"
    for index, text in enumerate(image.env):
        name, equals, value = text.partition("=")
        if not name or not equals or "\0" in text:
            raise BadInput(f"image {shown(container.image)}: config.Env[{index}]: not NAME=VALUE")
        variables[name] = value
    variables |= env
    return {"HOME": user.home, **variables}


def _args(container: Container, image: ImageView, variables: Mapping[str, str]) -> list[str]:
    """Kubernetes' rule: a command replaces the image's entrypoint and cmd, args replace its cmd alone."""
    expanded = {
        name: [environment.expand(w, variables) for w in getattr(container, name)] for name in ("command", "args")
    }
    if container.command:
        args = [*expanded["command"], *expanded["args"]]
    else:
        entrypoint = () if image.entrypoint == ("",) else image.entrypoint  # Docker's way to say that there is none
        args = [*entrypoint, *(expanded["args"] or image.cmd)]
    if not args or not args[0]:
        image_name = shown(container.image)
        raise BadInput(
            f"container {shown(container.name)}: no command, and image {image_name} has none", remedy="command"
        )
    if any("\0" in word for word in args):
        raise BadInput(f"container {shown(container.name)}: a NUL byte in the command")
    return args


def _working_directory(container: Container, image: ImageView) -> str:
    """Made absolute and without ".." by text alone; it is looked up inside the root, by the init stage."""
    if "\0" in image.working_dir:
        raise BadInput(f"image {shown(container.image)}: config.WorkingDir: contains a NUL byte")
    return "/" + posixpath.normpath("/" + (container.working_dir or image.working_dir)).lstrip("/")


def capabilities_of(container: Container) -> spec.Capabilities:
    """Bounding, effective and permitted alike; inheritable and ambient stay empty (CVE-2022-29162)."""
    context = container.security_context
    changes = (context.capabilities if context else None) or Capabilities()
    added = {_capability_name(name) for name in changes.add}
    dropped = {_capability_name(name) for name in changes.drop}
    kept = set() if "CAP_ALL" in dropped else set(DEFAULT_CAPABILITIES) - dropped
    names = sorted(kept | added)
    return spec.Capabilities(bounding=names, effective=names, permitted=names)


def _capability_name(name: str) -> str:
    return name if name.startswith("CAP_") else f"CAP_{name}"


def _resources(pod: Pod, asked: ResourceRequirements | None) -> spec.Resources:
    """Limits as hard limits; requests as what a container gets of a full machine: cpu.weight and memory.low."""
    pids = pod_annotations.pids_limit(pod.metadata.annotations)
    limits, requests = (asked.limits, asked.requests) if asked else ({}, {})
    cpu = spec.CPU()
    if "cpu" in limits:
        cpu.quota = quantities.cpu_quota_us(quantities.cpu_millicores(limits["cpu"]))
        cpu.period = quantities.CPU_PERIOD_US
    if share := requests.get("cpu", limits.get("cpu")):  # a limit without a request is a request of the same amount
        cpu.shares = quantities.cpu_shares(quantities.cpu_millicores(share))
    memory = spec.Memory()
    if "memory" in limits:
        memory.limit = memory.swap = quantities.memory_bytes(limits["memory"])  # no swap beyond the memory
    if "memory" in requests:
        memory.reservation = quantities.memory_bytes(requests["memory"])
    return spec.Resources(
        devices=[
            spec.DeviceRule(rule.allow, rule.kind, rule.major, rule.minor, rule.access)
            for rule in (DENY_ALL, *STANDARD)
        ],
        cpu=cpu if cpu != spec.CPU() else None,
        memory=memory if memory != spec.Memory() else None,
        pids=spec.Pids(pids) if pids is not None else None,
    )


def _sysctls(pod: Pod) -> dict[str, str]:
    context = pod.spec.security_context
    return {entry.name.replace("/", "."): entry.value for entry in context.sysctls} if context else {}


def sub_path(mount: VolumeMount, env: Mapping[str, str]) -> str:
    """What of the volume is mounted, "" for all of it. `env` is what environment.resolve gave.

    Raises BadInput for a subPathExpr with a variable that there is not, or that leads out of the volume by its text.
    """
    text = mount.sub_path
    if mount.sub_path_expr:
        missing = environment.missing_variables(mount.sub_path_expr, env)
        if missing:
            raise BadInput(f"volume mount {shown(mount.name)}: subPathExpr: no variable {shown(missing[0])}")
        text = environment.expand(mount.sub_path_expr, env)
        if wrong := sub_path_fault(text):
            raise BadInput(f"volume mount {shown(mount.name)}: subPathExpr becomes {shown(text)}, which {wrong}")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    return "/".join(parts)


def _mounts(
    container: Container, image: ImageView, surroundings: Surroundings, env: Mapping[str, str]
) -> list[spec.Mount]:
    """The root first, then what every container has, then volumes from the outermost directory inwards."""
    wanted = sorted(container.volume_mounts, key=lambda mount: _normal(mount.mount_path).count("/"))
    taken = {_normal(mount.mount_path) for mount in wanted}
    mounts = [_root(image, surroundings)]
    ids = _ids(surroundings)
    mounts += [_bind(source, target, "rro", "rnodev", ids=ids) for source, target in image.binds]
    mounts += [mount for mount in _standard_mounts(surroundings.shm) if mount.destination not in taken]
    # Before those of the pod, whichever is the deeper: what a user mounts is never hidden by an image.
    mounts += [
        _bind(source, target, "rw", "nodev", "copyup", ids=ids) for target, source in surroundings.image_volumes.items()
    ]
    mounts += [
        _bind(source, target, "nosuid", "nodev", "noexec")
        for target, source in surroundings.etc.items()
        if target not in taken
    ]
    for mount in wanted:
        options = _mount_options(mount, surroundings)
        mapping = ids if mount.name in surroundings.mapped else []
        source = surroundings.volumes[mount.name]
        if below := sub_path(mount, env):
            options.append(f"within={source}")
            source = below
        mounts.append(_bind(source, _normal(mount.mount_path), *options, ids=mapping))
    if surroundings.termination:
        # The last one: it may be in a volume.
        target = _normal(container.termination_message_path)
        mounts.append(_bind(surroundings.termination, target, "nosuid", "nodev", "noexec"))
    return mounts


def _mount_options(mount: VolumeMount, surroundings: Surroundings) -> list[str]:
    # Stricter than Kubernetes: what is mounted below is read-only too, unless that was asked against.
    recursive = mount.recursive_read_only != "Disabled" or mount.name in surroundings.read_only
    read_only = mount.read_only or mount.name in surroundings.read_only
    options = ["rro" if recursive else "ro"] if read_only else ["rw"]
    return [*options, *(["rslave"] if mount.mount_propagation == "HostToContainer" else [])]


def _root(image: ImageView, surroundings: Surroundings) -> spec.Mount:
    places = {"lowerdir": ":".join(image.lowers), "upperdir": surroundings.upper, "workdir": surroundings.work}
    options = [f"{name}={value}" for name, value in places.items()]
    ids = _ids(surroundings)
    return spec.Mount("/", "overlay", "overlay", options, uid_mappings=ids, gid_mappings=ids)


def _ids(surroundings: Surroundings) -> list[spec.IDMapping]:
    return [] if surroundings.ids is None else [spec.IDMapping(0, surroundings.ids, idblocks.SIZE)]


def _standard_mounts(shm: str) -> list[spec.Mount]:
    quiet = ["nosuid", "noexec", "nodev"]
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    shared = spec.Mount(_SHM, "tmpfs", "shm", [*quiet, "mode=1777", "size=65536k"])
    return [
        spec.Mount("/proc", "proc", "proc", quiet),
        spec.Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        spec.Mount("/dev/pts", "devpts", "devpts", terminals),
        _bind(shm, _SHM, *quiet) if shm else shared,
        spec.Mount("/dev/mqueue", "mqueue", "mqueue", quiet),
        spec.Mount("/sys", "sysfs", "sysfs", [*quiet, "ro"]),
        spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", "ro"]),
    ]


def _bind(source: str, destination: str, *options: str, ids: Sequence[spec.IDMapping] = ()) -> spec.Mount:
    words = ["rbind", "rprivate", *options]
    return spec.Mount(destination, "bind", source, words, uid_mappings=list(ids), gid_mappings=list(ids))


def _normal(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")
