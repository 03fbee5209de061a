"""What must hold for the volumes of a pod."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from kernel.errors import BadInput
from runtime.pod import downward, names, quantities
from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.objects import (
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    EmptyDirVolumeSource,
    HostPathVolumeSource,
    KeyToPath,
    PodSpec,
    ProjectedVolumeSource,
    SecretVolumeSource,
)
from runtime.pod.validate_fields import selector_faults
from runtime.pod.validate_mounts import absolute_path

HOST_PATH_TYPES = (
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
)


def volumes_faults(spec: PodSpec, path: Path) -> Iterator[Fault]:
    """All faults of a pod's volumes."""
    seen: dict[str, int] = {}
    for index, volume in enumerate(spec.volumes):
        place = (*path, index)
        if rule := names.label(volume.name):
            yield Fault((*place, "name"), f"{shown(volume.name)} is not a volume's name", rule)
        if volume.name and volume.name in seen:
            wrong = f"{shown(volume.name)} is also the name of volumes[{seen[volume.name]}]"
            yield Fault((*place, "name"), wrong, "names must differ")
        seen.setdefault(volume.name, index)
        sources = (
            *(volume.empty_dir, volume.host_path, volume.config_map, volume.secret),
            *(volume.downward_api, volume.projected),
        )
        if sum(source is not None for source in sources) != 1:
            known = "emptyDir, hostPath, configMap, secret, downwardAPI or projected"
            yield Fault(place, "needs exactly one source", known)
        if volume.empty_dir:
            yield from _empty_dir(volume.empty_dir, (*place, "emptyDir"))
        if volume.host_path:
            yield from _host_path(volume.host_path, (*place, "hostPath"))
        if volume.config_map:
            yield from _projection(volume.config_map, volume.config_map.name, (*place, "configMap"), "name")
        if volume.secret:
            yield from _projection(volume.secret, volume.secret.secret_name, (*place, "secret"), "secretName")
        if volume.downward_api:
            yield from _mode(volume.downward_api.default_mode, (*place, "downwardAPI", "defaultMode"))
            yield from _fields(volume.downward_api.items, spec, (*place, "downwardAPI", "items"))
        if volume.projected:
            yield from _projected(volume.projected, spec, (*place, "projected"))


def _empty_dir(source: EmptyDirVolumeSource, path: Path) -> Iterator[Fault]:
    if source.medium.startswith("HugePages"):
        yield Fault((*path, "medium"), f"{shown(source.medium)} is not supported by rawpod yet", "Memory, or none")
    elif source.medium not in ("", "Memory"):
        yield Fault((*path, "medium"), f"unknown medium {shown(source.medium)}", "Memory, or none for a directory")
    if source.size_limit is None:
        return
    try:
        quantities.memory_bytes(source.size_limit)
    except BadInput as error:
        yield Fault((*path, "sizeLimit"), error.message, error.remedy or "")


def _host_path(source: HostPathVolumeSource, path: Path) -> Iterator[Fault]:
    if not source.path:
        yield Fault((*path, "path"), "required", "a path of the host")
    else:
        yield from absolute_path(source.path, (*path, "path"))
    if source.type not in HOST_PATH_TYPES:
        yield Fault((*path, "type"), f"unknown type {shown(source.type)}", nearest(source.type, HOST_PATH_TYPES[1:]))


def _projection(
    source: ConfigMapVolumeSource | SecretVolumeSource, name: str, path: Path, name_field: str
) -> Iterator[Fault]:
    yield from _mode(source.default_mode, (*path, "defaultMode"))
    yield from _keys(name, source.items, path, name_field)


def _keys(name: str, items: list[KeyToPath], path: Path, name_field: str) -> Iterator[Fault]:
    if rule := names.subdomain(name):
        wrong = f"{shown(name)} is not an object's name" if name else "required"
        yield Fault((*path, name_field), wrong, rule)
    for index, item in enumerate(items):
        place = (*path, "items", index)
        if rule := names.key(item.key):
            yield Fault((*place, "key"), f"{shown(item.key)} is not a key", rule)
        yield from _file(item, place)


def _projected(source: ProjectedVolumeSource, spec: PodSpec, path: Path) -> Iterator[Fault]:
    yield from _mode(source.default_mode, (*path, "defaultMode"))
    taken: dict[str, str] = {}
    for index, part in enumerate(source.sources):
        place = (*path, "sources", index)
        given = [one for one in (part.config_map, part.secret, part.downward_api) if one is not None]
        if len(given) != 1:
            yield Fault(place, "needs exactly one source", "configMap, secret or downwardAPI")
        if part.config_map:
            yield from _keys(part.config_map.name, part.config_map.items, (*place, "configMap"), "name")
        if part.secret:
            yield from _keys(part.secret.name, part.secret.items, (*place, "secret"), "name")
        if part.downward_api:
            yield from _fields(part.downward_api.items, spec, (*place, "downwardAPI", "items"))
        items: Sequence[KeyToPath | DownwardAPIVolumeFile] = given[0].items if given else ()
        kind = "configMap" if part.config_map else "secret" if part.secret else "downwardAPI"
        for number, item in enumerate(items):
            target = str(PurePosixPath(item.path))
            if target in taken:
                wrong = f"{shown(target)} is also the path of {taken[target]}"
                yield Fault((*place, kind, "items", number, "path"), wrong, "paths must differ")
            taken.setdefault(target, f"sources[{index}].{kind}.items[{number}]")


def _fields(items: list[DownwardAPIVolumeFile], spec: PodSpec, path: Path) -> Iterator[Fault]:
    for index, item in enumerate(items):
        place = (*path, index)
        yield from _file(item, place)
        if (item.field_ref is None) == (item.resource_field_ref is None):
            yield Fault(place, "needs exactly one source", "fieldRef or resourceFieldRef")
        if item.field_ref:
            field = item.field_ref.field_path
            if not downward.is_volume_field(field):
                right = nearest(field, downward.VOLUME_FIELDS)
                yield Fault((*place, "fieldRef", "fieldPath"), f"{shown(field)} is no field for a file", right)
            if item.field_ref.api_version not in ("", "v1"):
                yield Fault((*place, "fieldRef", "apiVersion"), f"unknown {shown(item.field_ref.api_version)}", "v1")
        if item.resource_field_ref:
            yield from selector_faults(item.resource_field_ref, spec, (*place, "resourceFieldRef"), named=True)


def _file(item: KeyToPath | DownwardAPIVolumeFile, path: Path) -> Iterator[Fault]:
    parts = item.path.split("/")
    if (
        not item.path
        or item.path.startswith(("/", ".."))
        or ".." in parts
        or any(ord(character) < 32 for character in item.path)
    ):
        wrong = f"{shown(item.path)} is not a path below the volume" if item.path else "required"
        yield Fault((*path, "path"), wrong, "relative, without '..'")
    yield from _mode(item.mode, (*path, "mode"))


def _mode(mode: int | None, path: Path) -> Iterator[Fault]:
    if mode is not None and not 0 <= mode <= 0o777:
        yield Fault(path, f"{mode} is no file mode", "0000 to 0777, in octal with a leading zero")
