"""The volumes of a pod: directories of the host that its containers mount.

emptyDir                  a directory beside the upper layers, or a tmpfs of its own for medium Memory
configMap, secret         files in the pod's directory, which is in memory
hostPath                  what the user named, made where its type asks for it
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kernel.errors import BadInput, NotFound
from kernel.mounts import MNT_DETACH, MS_NODEV, MS_NOSUID, mount, umount2
from kernel.operation import Assembly, Operation
from runtime.pod.environment import MissingReference, Sources
from runtime.pod.objects import KeyToPath, Pod, Volume
from runtime.pod.quantities import memory_bytes

_DEFAULT_MODE = 0o644

_IS: dict[str, Callable[[int], bool]] = {
    "Directory": stat.S_ISDIR,
    "DirectoryOrCreate": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "FileOrCreate": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}


@dataclass(frozen=True, slots=True)
class EmptyDirectory(Operation):
    """A directory that every user of the pod's containers may write to, as in Kubernetes."""

    path: Path

    def describe(self) -> str:
        return f"make directory {self.path}"

    def execute(self, assembly: Assembly) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o777)


@dataclass(frozen=True, slots=True)
class MemoryDirectory(Operation):
    """A tmpfs of at most `size` bytes; half of the machine's memory for 0 (tmpfs(5))."""

    path: Path
    size: int = 0
    mode: int = 0o777

    def describe(self) -> str:
        return f"mount tmpfs -> {self.path}" + (f" [size={self.size}]" if self.size else "")

    def execute(self, assembly: Assembly) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = f"mode={self.mode:o}" + (f",size={self.size}" if self.size else "")
        mount("tmpfs", self.path, "tmpfs", MS_NOSUID | MS_NODEV, options)

    def undo(self, assembly: Assembly) -> None:
        if self.path.is_mount():
            umount2(self.path, MNT_DETACH)


@dataclass(frozen=True, slots=True)
class KeyFiles(Operation):
    """The keys of a ConfigMap or Secret as files, each (path below the volume, content, mode)."""

    path: Path
    files: tuple[tuple[str, bytes, int], ...] = field(repr=False)

    def describe(self) -> str:
        return f"write {', '.join(name for name, _, _ in self.files) or 'nothing'} to {self.path}"

    def execute(self, assembly: Assembly) -> None:
        self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, content, mode in self.files:
            file = self.path / name
            file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as opened:
                opened.write(content)
                os.fchmod(fd, mode)


@dataclass(frozen=True, slots=True)
class HostPath(Operation):
    """Checks that what is there is of the type asked for; makes it for the types that end in OrCreate."""

    path: Path
    kind: str

    def describe(self) -> str:
        return f"check {self.path}" + (f" is a {self.kind}" if self.kind else "")

    def execute(self, assembly: Assembly) -> None:
        if self.kind == "DirectoryOrCreate":
            self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif self.kind == "FileOrCreate":
            self.path.touch(mode=0o644, exist_ok=True)
        try:
            mode = self.path.stat().st_mode
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise NotFound(
                f"host path {str(self.path)!r}: {reason}", remedy="create it, or use type *OrCreate"
            ) from None
        if self.kind and not _IS[self.kind](mode):
            raise BadInput(f"host path {str(self.path)!r} is no {self.kind.removesuffix('OrCreate')}")


def directory_of(volume: Volume, memory: Path, disk: Path) -> Path:
    """The directory of the host that is mounted for `volume`, given where the pod's volumes are."""
    if volume.host_path is not None:
        return Path(volume.host_path.path)
    on_disk = volume.empty_dir is not None and volume.empty_dir.medium != "Memory"
    return (disk if on_disk else memory) / volume.name


def operations(pod: Pod, sources: Sources, memory: Path, disk: Path) -> Iterator[Operation]:
    """What sets the pod's volumes up. Raises MissingReference for a ConfigMap or Secret that is not there."""
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
            yield KeyFiles(path, _files(volume.name, data, source.items, source.default_mode, bool(source.optional)))
        elif volume.secret is not None:
            named = volume.secret
            secret = sources.secrets.get(named.secret_name)
            if secret is None and not named.optional:
                raise MissingReference(f"Secret {named.secret_name!r} of volume {volume.name!r} not found")
            data = {key: b64decode(text) for key, text in secret.data.items()} if secret else {}
            yield KeyFiles(path, _files(volume.name, data, named.items, named.default_mode, bool(named.optional)))
        elif volume.empty_dir is not None and volume.empty_dir.medium == "Memory":
            limit = volume.empty_dir.size_limit
            yield MemoryDirectory(path, memory_bytes(limit) if limit else 0)
        else:
            yield EmptyDirectory(path)


def _files(
    volume: str, data: Mapping[str, bytes], items: list[KeyToPath], mode: int | None, optional: bool
) -> tuple[tuple[str, bytes, int], ...]:
    default = _DEFAULT_MODE if mode is None else mode
    if not items:
        return tuple((key, content, default) for key, content in data.items())
    missing = [item.key for item in items if item.key not in data]
    if missing and not optional:
        raise MissingReference(f"volume {volume!r} needs key {missing[0]!r}, which is not there")
    return tuple(
        (item.path, data[item.key], default if item.mode is None else item.mode) for item in items if item.key in data
    )
