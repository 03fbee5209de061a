"""The files of configMap, secret, downwardAPI and projected volumes. Pure."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from rootfs.volumes import VolumeFile
from runtime.pod import downward
from runtime.pod.environment import MissingReference, Sources
from runtime.pod.objects import DownwardAPIVolumeFile, KeyToPath, Pod, Volume

_DEFAULT_MODE = 0o644


def files_of(pod: Pod, volume: Volume, sources: Sources, machine: downward.Machine) -> tuple[VolumeFile, ...] | None:
    """What the volume holds; None for a volume that is not made of files.

    Raises MissingReference for a ConfigMap, a Secret or a key of theirs that has to be there and is not.
    """
    reader = _Reader(pod, volume.name, sources, machine)
    if source := volume.config_map:
        reader.config_map(source.name, source.items, bool(source.optional), source.default_mode)
    elif named := volume.secret:
        reader.secret(named.secret_name, named.items, bool(named.optional), named.default_mode)
    elif fields := volume.downward_api:
        reader.fields(fields.items, fields.default_mode)
    elif projected := volume.projected:
        for part in projected.sources:
            if config_map := part.config_map:
                reader.config_map(config_map.name, config_map.items, bool(config_map.optional), projected.default_mode)
            elif secret := part.secret:
                reader.secret(secret.name, secret.items, bool(secret.optional), projected.default_mode)
            elif part.downward_api:
                reader.fields(part.downward_api.items, projected.default_mode)
    else:
        return None
    files = tuple(reader.files.values())
    if fs_group(pod) is None:
        return files
    return tuple(file._replace(mode=file.mode | 0o440) for file in files)


def fs_group(pod: Pod) -> int | None:
    """The group that the pod's own volumes belong to and that may read all of their files, as in Kubernetes."""
    return pod.spec.security_context.fs_group if pod.spec.security_context else None


class _Reader:
    """Collects files by path: of two with one path the later one stands, as in Kubernetes."""

    def __init__(self, pod: Pod, volume: str, sources: Sources, machine: downward.Machine) -> None:
        self.files: dict[str, VolumeFile] = {}
        self._pod, self._volume, self._sources, self._machine = pod, volume, sources, machine

    def config_map(self, name: str, items: Sequence[KeyToPath], optional: bool, mode: int | None) -> None:
        found = self._sources.config_maps.get(name)
        if found is None and not optional:
            raise MissingReference(f"ConfigMap {name!r} of volume {self._volume!r} not found")
        data = {key: text.encode() for key, text in found.data.items()} if found else {}
        data |= {key: b64decode(text) for key, text in found.binary_data.items()} if found else {}
        self._keys(data, items, optional, mode)

    def secret(self, name: str, items: Sequence[KeyToPath], optional: bool, mode: int | None) -> None:
        found = self._sources.secrets.get(name)
        if found is None and not optional:
            raise MissingReference(f"Secret {name!r} of volume {self._volume!r} not found")
        data = {key: b64decode(text) for key, text in found.data.items()} if found else {}
        self._keys(data, items, optional, mode)

    def fields(self, items: Sequence[DownwardAPIVolumeFile], mode: int | None) -> None:
        for item in items:
            if item.field_ref:
                text = downward.field(self._pod, item.field_ref.field_path)
            else:
                assert item.resource_field_ref is not None
                text = downward.resource(self._pod, item.resource_field_ref, self._machine)
            self._add(item.path, text.encode(), item.mode, mode)

    def _keys(self, data: Mapping[str, bytes], items: Sequence[KeyToPath], optional: bool, mode: int | None) -> None:
        if not items:
            for key, content in data.items():
                self._add(key, content, None, mode)
        for item in items:
            if item.key in data:
                self._add(item.path, data[item.key], item.mode, mode)
            elif not optional:
                raise MissingReference(f"volume {self._volume!r} needs key {item.key!r}, which is not there")

    def _add(self, path: str, content: bytes, own: int | None, shared: int | None) -> None:
        mode = own if own is not None else shared if shared is not None else _DEFAULT_MODE
        # Kubernetes takes "a//b" and "./a", too.
        normal = str(PurePosixPath(path))
        self.files[normal] = VolumeFile(normal, content, mode)
