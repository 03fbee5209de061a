"""The volumes of a pod: directories of the host that its containers mount.

emptyDir                  a directory beside the upper layers, or a tmpfs of its own for medium Memory
configMap, secret,        files in the pod's directory, which is in memory
downwardAPI, projected
hostPath                  what the user named, made where its type asks for it
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kernel.errors import RawpodError
from kernel.operation import Assembly, Operation
from rootfs.volumes import VolumeFile, check_host_path, make_below, make_empty, mount_memory, unmount_memory, write_tree
from runtime.pod.compile import sub_path
from runtime.pod.downward import Machine
from runtime.pod.environment import MissingReference, Sources
from runtime.pod.idblocks import HOST_ROOT, PodRoot
from runtime.pod.objects import Pod, Volume, VolumeMount
from runtime.pod.quantities import memory_bytes
from runtime.pod.volume_files import files_of, fs_group


class EmptyDirectory(Operation):
    """A directory that every user of the pod's containers may write to, as in Kubernetes."""

    path: Path
    group: int | None = None

    def describe(self) -> str:
        return f"make directory {self.path}"

    def execute(self, assembly: Assembly) -> None:
        make_empty(self.path, group=self.group)


class MemoryDirectory(Operation):
    """A tmpfs of at most `size` bytes; half of the machine's memory for 0 (tmpfs(5))."""

    path: Path
    size: int = 0
    mode: int = 0o777
    owner: PodRoot = HOST_ROOT
    group: int | None = None

    def describe(self) -> str:
        return f"mount tmpfs -> {self.path}" + (f" [size={self.size}]" if self.size else "")

    def execute(self, assembly: Assembly) -> None:
        owner = self.owner.id()
        mount_memory(self.path, self.size, mode=self.mode, owner=owner, group=_on_host(self.group, owner))

    def undo(self, assembly: Assembly) -> None:
        unmount_memory(self.path)


class KeyFiles(Operation):
    """The keys of ConfigMaps and Secrets, or fields of the pod, as files that change all at once."""

    path: Path
    files: tuple[VolumeFile, ...]
    owner: PodRoot = HOST_ROOT
    group: int | None = None

    def __repr__(self) -> str:
        return f"KeyFiles(path={self.path!r})"  # what is in them may be secret

    def describe(self) -> str:
        return f"write {', '.join(file.path for file in self.files) or 'nothing'} to {self.path}"

    def execute(self, assembly: Assembly) -> None:
        owner = self.owner.id()
        write_tree(self.path, self.files, owner=owner, group=_on_host(self.group, owner))


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


def operations(
    pod: Pod,
    sources: Sources,
    memory: Path,
    disk: Path,
    owner: PodRoot = HOST_ROOT,
    memory_limit: int | None = None,
) -> Iterator[Operation]:
    """What sets the pod's volumes up. Raises MissingReference for a ConfigMap or Secret that is not there.

    `owner` is who has the volumes in memory, none of which is larger than `memory_limit` bytes.
    """
    for volume in pod.spec.volumes:
        path = directory_of(volume, memory, disk)
        files = files_of(pod, volume, sources, machine())
        if files is not None:
            yield KeyFiles(path, files, owner, fs_group(pod))
        elif volume.host_path is not None:
            yield HostPath(path, volume.host_path.type)
        elif volume.empty_dir is not None and volume.empty_dir.medium == "Memory":
            limit = volume.empty_dir.size_limit
            sizes = [*([memory_bytes(limit)] if limit else []), *([memory_limit] if memory_limit else [])]
            yield MemoryDirectory(path, min(sizes, default=0), owner=owner, group=fs_group(pod))
        else:
            yield EmptyDirectory(path, fs_group(pod))  # id-mapped: the ids on disk are the container's


def update(pod: Pod, sources: Sources, memory: Path, owner: PodRoot = HOST_ROOT) -> list[str]:
    """Write what has changed of the volumes that are made of files; what could not be, as lines.

    A volume whose ConfigMap or Secret is gone keeps what it has, as in Kubernetes.
    """
    faults: list[str] = []
    for volume in pod.spec.volumes:
        try:
            files = files_of(pod, volume, sources, machine())
            if files is not None:
                first = owner.id()
                write_tree(memory / volume.name, files, owner=first, group=_on_host(fs_group(pod), first))
        except MissingReference:
            continue
        except (RawpodError, OSError) as error:
            faults.append(f"volume {volume.name!r}: {error}")
    return faults


def make_sub_paths(mounts: Sequence[VolumeMount], places: Mapping[str, str], env: Mapping[str, str]) -> None:
    """Make the directories that subPath names and that are not there, as readable as their volumes, as Kubernetes does.

    Raises ContainerError for one that would be outside of its volume.
    """
    for mount in mounts:
        if below := sub_path(mount, env):
            make_below(places[mount.name], below)


def read_only(pod: Pod) -> frozenset[str]:
    """The volumes that no container may write to: what is in them is written by the monitor."""
    return frozenset(
        volume.name
        for volume in pod.spec.volumes
        if volume.config_map or volume.secret or volume.downward_api or volume.projected
    )


def _on_host(group: int | None, first: int) -> int | None:
    """The id by which the host knows a group of the pod, whose ids begin with `first`."""
    return None if group is None else first + group


def machine() -> Machine:
    """This one."""
    return Machine((os.cpu_count() or 1) * 1000, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
