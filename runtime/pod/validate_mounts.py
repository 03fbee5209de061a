"""What must hold for the places of volumes in a container."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.objects import PodSpec, VolumeMount

_FORBIDDEN_MOUNTS = ("/proc", "/sys", "/dev")
_ALLOWED_BELOW = ("/dev/shm",)
_PROPAGATIONS = ("None", "HostToContainer")
_RECURSIVE = ("Disabled", "IfPossible", "Enabled")


def absolute_path(text: str, path: Path) -> Iterator[Fault]:
    """A path inside a container or on the host: absolute, without "..", on one line."""
    if not text.startswith("/"):
        yield Fault(path, f"{shown(text)} is not absolute", "a path that begins with '/'")
    elif ".." in text.split("/"):
        yield Fault(path, f"{shown(text)} contains '..'", "write the path without it")
    elif any(ord(character) < 32 for character in text) or len(text) > 4095:
        yield Fault(path, f"{shown(text)} contains control characters or is longer than 4095", "a plain path")


def mount_faults(mounts: list[VolumeMount], spec: PodSpec, path: Path) -> Iterator[Fault]:
    """All faults of a container's volumeMounts."""
    volumes = [volume.name for volume in spec.volumes]
    seen: dict[str, int] = {}
    for index, mount in enumerate(mounts):
        place = (*path, index)
        if mount.name not in volumes:
            right = nearest(mount.name, volumes) or "declare it in spec.volumes"
            yield Fault((*place, "name"), f"no volume {shown(mount.name)} in spec.volumes", right)
        target = "/" + "/".join(part for part in mount.mount_path.split("/") if part not in ("", "."))
        wrong = list(absolute_path(mount.mount_path, (*place, "mountPath")))
        if not wrong and _is_reserved(target):
            what = "the root" if target == "/" else shown(target)
            wrong = [Fault((*place, "mountPath"), f"a volume cannot be mounted over {what}", "another directory")]
        if ":" in mount.mount_path:
            wrong.append(Fault((*place, "mountPath"), f"{shown(mount.mount_path)} contains ':'", "a path without it"))
        yield from wrong
        if target in seen:
            taken = f"{shown(target)} is also mounted by volumeMounts[{seen[target]}]"
            yield Fault((*place, "mountPath"), taken, "one volume each directory")
        seen.setdefault(target, index)
        yield from _sub_path(mount, place)
        yield from _propagation(mount, place)


def _is_reserved(target: str) -> bool:
    if target == "/":
        return True
    if any(target == allowed or target.startswith(f"{allowed}/") for allowed in _ALLOWED_BELOW):
        return False
    return any(target == place or target.startswith(f"{place}/") for place in _FORBIDDEN_MOUNTS)


def _sub_path(mount: VolumeMount, path: Path) -> Iterator[Fault]:
    if mount.sub_path and mount.sub_path_expr:
        yield Fault((*path, "subPathExpr"), "given together with subPath", "remove one of them")
    for name, text in (("subPath", mount.sub_path), ("subPathExpr", mount.sub_path_expr)):
        if text and (wrong := sub_path_fault(text)):
            yield Fault((*path, name), f"{shown(text)} {wrong}", "relative, without '..'")


def sub_path_fault(text: str) -> str | None:
    """Why this is no place below a volume."""
    if text.startswith("/"):
        return "is absolute"
    if ".." in text.split("/"):
        return "contains '..'"
    if any(ord(character) < 32 for character in text) or len(text) > 4095:
        return "contains control characters or is longer than 4095"
    return None


def _propagation(mount: VolumeMount, path: Path) -> Iterator[Fault]:
    asked = mount.mount_propagation
    if asked == "Bidirectional":
        wrong = "'Bidirectional' takes a privileged container, and rawpod has none"
        yield Fault((*path, "mountPropagation"), wrong, "HostToContainer, or None")
    elif asked not in ("", *_PROPAGATIONS):
        wrong = f"unknown propagation {shown(asked)}"
        yield Fault((*path, "mountPropagation"), wrong, nearest(asked, _PROPAGATIONS))
    recursive = mount.recursive_read_only
    if recursive not in ("", *_RECURSIVE):
        wrong = f"unknown value {shown(recursive)}"
        yield Fault((*path, "recursiveReadOnly"), wrong, nearest(recursive, _RECURSIVE))
    elif recursive in ("IfPossible", "Enabled"):
        if not mount.read_only:
            yield Fault((*path, "recursiveReadOnly"), f"{shown(recursive)} without readOnly: true", "readOnly: true")
        if asked not in ("", "None"):
            wrong = f"{shown(recursive)} does not go with mountPropagation {shown(asked)}"
            yield Fault((*path, "recursiveReadOnly"), wrong, "one of them")
