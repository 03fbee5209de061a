"""What a container description must fulfil before rawpod builds it.

Two questions, both answered without touching the system: is the description well formed (`faults`), and does it ask for
something rawpod does not do yet (`unsupported`)? Both give JSON paths, so that the author finds the place.
"""

from __future__ import annotations

from kernel.errors import BadInput, NotSupported
from runtime import spec
from runtime.checks import resources as resources_check
from runtime.checks.mounts import NAMESPACES, device_faults, mount_faults, time_faults, user_faults
from runtime.checks.process import hook_faults, linux_faults, process_faults
from runtime.checks.sysctl import sysctl_faults
from runtime.ids import ALPHANUMERIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")


def check(config: spec.Config) -> None:
    """Raise BadInput naming every malformed part, or else NotSupported naming every part that is not executed."""
    if malformed := list(faults(config)):
        raise BadInput("config.json: " + "; ".join(malformed), remedy="see the OCI runtime specification, config.md")
    if missing := unsupported(config):
        raise NotSupported("config.json: not supported by rawpod yet: " + ", ".join(missing))


def check_process(process: spec.Process) -> None:
    """Raise BadInput naming every malformed part of a process that is to join a container."""
    if malformed := list(process_faults(process)):
        raise BadInput("; ".join(malformed), remedy="see the OCI runtime specification, config.md")


def unsupported(config: spec.Config) -> list[str]:
    """The JSON paths of all parts present that rawpod does not execute, in the order of the document."""
    paths = [name for name in ("solaris", "windows", "vm", "zos") if getattr(config, name) is not None]
    if config.linux is not None and config.linux.resources is not None:
        paths += resources_check.unsupported(config.linux.resources)
    return paths


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
        yield from process_faults(config.process)
    if config.hooks is not None:
        yield from hook_faults(config.hooks)
    if "" in config.annotations:
        yield "annotations: a key is empty"
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
    yield from sysctl_faults(linux.sysctl, seen)
    yield from linux_faults(linux)
    yield from device_faults(linux)
    yield from user_faults(config, linux)
    yield from time_faults(linux)
    if linux.seccomp is not None:
        from runtime.seccomp.check import faults as seccomp_faults

        yield from seccomp_faults(linux.seccomp)
    if linux.resources:
        yield from resources_check.faults(linux.resources)


def _absolute(place: str, path: str) -> Iterator[str]:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        yield f"{place}: {path!r} is not an absolute path without '..'"
