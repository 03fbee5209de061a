"""What a container description must fulfil before rawpod builds it.

Two questions, both answered without touching the system: is the description well formed (`faults`), and does it ask for
something rawpod does not do yet (`unsupported`)? Both give JSON paths, so that the author finds the place.
"""

from __future__ import annotations

from kernel.errors import BadInput, NotSupported
from runtime import spec, spec_resources_check
from runtime.ids import ALPHANUMERIC
from runtime.spec_check_mounts import NAMESPACES, device_faults, mount_faults, time_faults, user_faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ID = 2**32 - 2  # 2^32 - 1 is (uid_t) -1, which setuid(2) and chown(2) read as "leave unchanged"
PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")

# The same names as kernel.credentials.CAPABILITIES, which this module may not import: it is pure, that one makes calls.
_CAPABILITY_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
    "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = frozenset(f"CAP_{name}" for name in _CAPABILITY_NAMES.split())


def check(config: spec.Config) -> None:
    """Raise BadInput naming every malformed part, or else NotSupported naming every part that is not executed."""
    if malformed := list(faults(config)):
        raise BadInput("config.json: " + "; ".join(malformed), remedy="see the OCI runtime specification, config.md")
    if missing := unsupported(config):
        raise NotSupported("config.json: not supported by rawpod yet: " + ", ".join(missing))


def check_process(process: spec.Process) -> None:
    """The same for a process that joins a container."""
    if malformed := list(_process_faults(process)):
        raise BadInput("; ".join(malformed), remedy="see the OCI runtime specification, config.md")
    if missing := _unsupported_process(process):
        raise NotSupported("not supported by rawpod yet: " + ", ".join(missing))


def unsupported(config: spec.Config) -> list[str]:
    """The JSON paths of all parts present that rawpod does not execute, in the order of the document."""
    paths = [name for name in ("solaris", "windows", "vm", "zos") if getattr(config, name) is not None]
    if config.hooks is not None:
        paths += [f"hooks.{name}" for name in _set_fields(config.hooks)]
    if config.process is not None:
        paths += _unsupported_process(config.process)
    if config.linux is not None:
        paths += _unsupported_linux(config.linux)
    return paths


def _unsupported_process(process: spec.Process) -> list[str]:
    names = {
        "commandLine": process.command_line,
        "apparmorProfile": process.apparmor_profile,
        "selinuxLabel": process.selinux_label,
        "scheduler": process.scheduler,
        "ioPriority": process.io_priority,
        "execCPUAffinity": process.exec_cpu_affinity,
        "user.username": process.user.username,
    }
    return [f"process.{name}" for name, value in names.items() if value]


def _unsupported_linux(linux: spec.Linux) -> list[str]:
    names = {
        "seccomp": linux.seccomp,
        "intelRdt": linux.intel_rdt,
        "personality": linux.personality,
    }
    paths = [f"linux.{name}" for name, value in names.items() if value]
    return paths + (spec_resources_check.unsupported(linux.resources) if linux.resources else [])


def faults(config: spec.Config) -> Iterator[str]:
    """What is malformed, one `JSON path: what is wrong` each."""
    if not _is_version_1(config.oci_version):
        yield f"ociVersion: {config.oci_version!r} is not a version that begins with 1."
    if config.root is None and not _has_overlay_root(config):
        yield "root: missing (a path, or a first mount of type overlay on '/')"
    if _has_overlay_root(config):
        given = [option.partition("=")[0] for option in config.mounts[0].options]
        for name in ("lowerdir", "upperdir", "workdir"):
            if name not in given:
                yield f"mounts[0].options: no {name}= (an overlay that is the root needs it)"
    if config.root is not None and (not config.root.path or "\0" in config.root.path):
        yield f"root.path: {config.root.path!r} is not a path"
    yield from mount_faults(config)
    if config.process is not None:
        yield from _process_faults(config.process)
    yield from _linux_faults(config, config.linux or spec.Linux())


def _is_version_1(text: str) -> bool:
    """Semantic versioning 2.0: three numbers without leading zeros, then a pre-release and build metadata."""
    core, _, build = text.partition("+")
    core, dash, release = core.partition("-")
    numbers = core.split(".")
    return (
        len(numbers) == 3
        and numbers[0] == "1"
        and all(number.isascii() and number.isdigit() and str(int(number)) == number for number in numbers)
        and (bool(release) or not dash)
        and (ALPHANUMERIC | {".", "-"}).issuperset(release + build)
    )


def _has_overlay_root(config: spec.Config) -> bool:
    return bool(config.mounts) and config.mounts[0].destination == "/" and config.mounts[0].type == "overlay"


def _process_faults(process: spec.Process) -> Iterator[str]:
    yield from _absolute("process.cwd", process.cwd)
    if not process.args:
        yield "process.args: empty (the program and its arguments)"
    elif not process.args[0]:
        yield "process.args[0]: empty (the program's name)"
    for name, texts in (("args", process.args), ("env", process.env)):
        for index, text in enumerate(texts):
            if "\0" in text:
                yield f"process.{name}[{index}]: contains a NUL byte"
    for index, text in enumerate(process.env):
        if text.find("=") < 1:
            yield f"process.env[{index}]: not NAME=VALUE"  # the text itself may be a secret
    yield from _user_faults(process.user)
    for index, limit in enumerate(process.rlimits):
        if not 0 <= limit.soft <= limit.hard < 2**64:
            yield f"process.rlimits[{index}]: soft {limit.soft} and hard {limit.hard} (0 <= soft <= hard < 2^64)"
    if process.oom_score_adj is not None and not -1000 <= process.oom_score_adj <= 1000:
        yield f"process.oomScoreAdj: {process.oom_score_adj} is out of range (-1000 to 1000)"
    yield from _capability_faults(process.capabilities or spec.Capabilities())


def _user_faults(user: spec.User) -> Iterator[str]:
    ids = {"uid": user.uid, "gid": user.gid}
    ids |= {f"additionalGids[{index}]": gid for index, gid in enumerate(user.additional_gids)}
    for name, value in ids.items():
        if not 0 <= value <= MAX_ID:
            yield f"process.user.{name}: {value} is out of range (0 to {MAX_ID})"
    if user.umask is not None and not 0 <= user.umask <= 0o777:
        yield f"process.user.umask: {user.umask} is out of range (0 to 511)"


def _capability_faults(capabilities: spec.Capabilities) -> Iterator[str]:
    for field in capabilities._fields:
        for name in getattr(capabilities, field):
            if name not in CAPABILITIES:
                yield f"process.capabilities.{field}: unknown capability {name!r}"


def _linux_faults(config: spec.Config, linux: spec.Linux) -> Iterator[str]:
    seen: set[str] = set()
    for index, namespace in enumerate(linux.namespaces):
        place = f"linux.namespaces[{index}]"
        if namespace.type in seen:
            yield f"{place}: {namespace.type!r} is listed twice"
        seen.add(namespace.type)
        if namespace.type not in NAMESPACES:
            yield f"{place}.type: unknown namespace {namespace.type!r} ({', '.join(NAMESPACES)})"
        if namespace.path:
            yield from _absolute(f"{place}.path", namespace.path)
    if "mount" not in seen:
        yield "linux.namespaces: no 'mount' namespace (a root filesystem needs one of its own)"
    for name, text, limit in (("hostname", config.hostname, 64), ("domainname", config.domainname, 64)):
        if text and "uts" not in seen:
            yield f"{name}: set without a 'uts' namespace"
        if len(text.encode()) > limit or "\0" in text or "\n" in text:
            yield f"{name}: longer than {limit} bytes, or with a NUL or newline in it"
    if linux.rootfs_propagation and linux.rootfs_propagation not in PROPAGATIONS:
        yield f"linux.rootfsPropagation: unknown {linux.rootfs_propagation!r} ({', '.join(PROPAGATIONS)})"
    for name in ("masked_paths", "readonly_paths"):
        for index, path in enumerate(getattr(linux, name)):
            yield from _absolute(f"linux.{linux.property_of(name)}[{index}]", path)
    if ".." in linux.cgroups_path.split("/") or "\0" in linux.cgroups_path:
        yield f"linux.cgroupsPath: {linux.cgroups_path!r} leaves the hierarchy"
    for key in linux.sysctl:
        parts = key.replace("/", ".").split(".")
        if len(parts) < 2 or not all(parts) or not (ALPHANUMERIC | {"_", "-"}).issuperset("".join(parts)):
            yield f"linux.sysctl: {key!r} is not the name of a kernel parameter"
    yield from device_faults(linux)
    yield from user_faults(config, linux)
    yield from time_faults(linux)
    if linux.resources:
        yield from spec_resources_check.faults(linux.resources)


def _absolute(place: str, path: str) -> Iterator[str]:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        yield f"{place}: {path!r} is not an absolute path without '..'"


def _set_fields(struct: spec.SpecStruct) -> list[str]:
    return [struct.property_of(field) for field in struct._fields if getattr(struct, field)]
