"""The volumes of a pod: directories of the host that its containers mount.

emptyDir                  a directory beside the upper layers, or a tmpfs of its own for medium Memory
configMap, secret         files in the pod's directory, which is in memory
hostPath                  what the user named, made where its type asks for it
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from kernel.operation import Assembly, Operation
from rootfs.volumes import VolumeFile, check_host_path, make_empty, mount_memory, unmount_memory, write_files
from runtime.pod.environment import MissingReference, Sources
from runtime.pod.idblocks import HOST_ROOT, PodRoot
from runtime.pod.objects import KeyToPath, Pod, Volume
from runtime.pod.quantities import memory_bytes

_DEFAULT_MODE = 0o644


class EmptyDirectory(Operation):
    """A directory that every user of the pod's containers may write to, as in Kubernetes."""

    path: Path

    def describe(self) -> str:
        return f"make directory {self.path}"

    def execute(self, assembly: Assembly) -> None:
        make_empty(self.path)


class MemoryDirectory(Operation):
    """A tmpfs of at most `size` bytes; half of the machine's memory for 0 (tmpfs(5))."""

    path: Path
    size: int = 0
    mode: int = 0o777
    owner: PodRoot = HOST_ROOT

    def describe(self) -> str:
        return f"mount tmpfs -> {self.path}" + (f" [size={self.size}]" if self.size else "")

    def execute(self, assembly: Assembly) -> None:
        mount_memory(self.path, self.size, mode=self.mode, owner=self.owner.id())

    def undo(self, assembly: Assembly) -> None:
        unmount_memory(self.path)


class KeyFiles(Operation):
    """The keys of a ConfigMap or Secret as files."""

    path: Path
    files: tuple[VolumeFile, ...]
    owner: PodRoot = HOST_ROOT

    def __repr__(self) -> str:
        return f"KeyFiles(path={self.path!r})"  # what is in them may be secret

    def describe(self) -> str:
        return f"write {', '.join(file.path for file in self.files) or 'nothing'} to {self.path}"

    def execute(self, assembly: Assembly) -> None:
        write_files(self.path, self.files, owner=self.owner.id())


class HostPath(Operation):
    """Checks that what is there is of the type asked for; makes it for the types that end in OrCreate."""

    path: Path
    kind: str

    def describe(self) -> str:
        return f"check {self.path}" + (f" is a {self.kind}" if self.kind else "")

    def execute(self, assembly: Assembly) -> None:
        check_host_path(str(self.path), self.kind)


def directory_of(volume: Volume, memory: Path, disk: Path) -> Path:
    """The directory of the host that is mounted for `volume`, given where the pod's volumes are."""
    if volume.host_path is not None:
        return Path(volume.host_path.path)
    on_disk = volume.empty_dir is not None and volume.empty_dir.medium != "Memory"
    return (disk if on_disk else memory) / volume.name


def mapped(pod: Pod) -> frozenset[str]:
    """The volumes that a pod with users of its own has id-mapped, so that files keep the container's ids on disk.

    Not those in memory, which are the pod's alone and belong to its users as they are: tmpfs maps ids only from Linux
    6.3 on. Not devices: what gives access to them is the device cgroup and their mode.
    """
    return frozenset(
        volume.name
        for volume in pod.spec.volumes
        if (volume.host_path is not None and volume.host_path.type not in ("CharDevice", "BlockDevice"))
        or (volume.empty_dir is not None and volume.empty_dir.medium != "Memory")
    )


def operations(pod: Pod, sources: Sources, memory: Path, disk: Path, owner: PodRoot = HOST_ROOT) -> Iterator[Operation]:
    """What sets the pod's volumes up. Raises MissingReference for a ConfigMap or Secret that is not there.

    `owner` is who has the volumes in memory.
    """
    for volume in pod.spec.volumes:
        path = directory_of(volume, memory, disk)
        if volume.host_path is not None:
            yield HostPath(path, volume.host_path.type)
        elif volume.config_map is not None:
            source = volume.config_map
            config_map = sources.config_maps.get(source.name)
            if config_map is None and not source.optional:
                raise MissingReference(f"ConfigMap {source.name!r} of volume {volume.name!r} not found")
            data = {key: text.encode() for key, text in config_map.data.items()} if config_map else {}
            data |= {key: b64decode(text) for key, text in config_map.binary_data.items()} if config_map else {}
            files = _files(volume.name, data, source.items, source.default_mode, bool(source.optional))
            yield KeyFiles(path, files, owner)
        elif volume.secret is not None:
            named = volume.secret
            secret = sources.secrets.get(named.secret_name)
            if secret is None and not named.optional:
                raise MissingReference(f"Secret {named.secret_name!r} of volume {volume.name!r} not found")
            data = {key: b64decode(text) for key, text in secret.data.items()} if secret else {}
            files = _files(volume.name, data, named.items, named.default_mode, bool(named.optional))
            yield KeyFiles(path, files, owner)
        elif volume.empty_dir is not None and volume.empty_dir.medium == "Memory":
            limit = volume.empty_dir.size_limit
            yield MemoryDirectory(path, memory_bytes(limit) if limit else 0, owner=owner)
        else:
            yield EmptyDirectory(path)


def _files(
    volume: str, data: Mapping[str, bytes], items: list[KeyToPath], mode: int | None, optional: bool
) -> tuple[VolumeFile, ...]:
    default = _DEFAULT_MODE if mode is None else mode
    if not items:
        return tuple(VolumeFile(key, content, default) for key, content in data.items())
    missing = [item.key for item in items if item.key not in data]
    if missing and not optional:
        raise MissingReference(f"volume {volume!r} needs key {missing[0]!r}, which is not there")
    # Kubernetes takes "a//b" and "./a", too; of two items with one path the last one counts.
    paths = {str(PurePosixPath(item.path)): item for item in items if item.key in data}
    return tuple(
        VolumeFile(path, data[item.key], default if item.mode is None else item.mode) for path, item in paths.items()
    )
