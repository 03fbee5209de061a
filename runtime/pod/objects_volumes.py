"""The volumes of a pod as Kubernetes writes them, and their places in containers."""

from __future__ import annotations

import msgspec

from runtime.pod.meta import KubernetesStruct, Mode, Quantity
from runtime.pod.objects_fields import FieldSelector, ResourceFieldSelector


class VolumeMount(KubernetesStruct):
    """A volume of the pod, mounted in a container, or of it what is at `subPath`.

    In `subPathExpr`, `$(NAME)` stands for a variable of the container.
    """

    name: str = ""
    mount_path: str = ""
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str = ""
    recursive_read_only: str = ""


class EmptyDirVolumeSource(KubernetesStruct):
    """A directory that lives as long as the pod; medium "Memory" is a tmpfs."""

    medium: str = ""
    size_limit: Quantity | None = None


class HostPathVolumeSource(KubernetesStruct):
    """A file or directory of the host."""

    path: str = ""
    type: str = ""


class KeyToPath(KubernetesStruct):
    """The file that a key's value is written to, below the volume's root."""

    key: str = ""
    path: str = ""
    mode: Mode | None = None


class ConfigMapVolumeSource(KubernetesStruct):
    """A ConfigMap's keys as files."""

    name: str = ""
    items: list[KeyToPath] = []
    default_mode: Mode | None = None
    optional: bool | None = None


class SecretVolumeSource(KubernetesStruct):
    """A Secret's keys as files, on a tmpfs."""

    secret_name: str = ""
    items: list[KeyToPath] = []
    default_mode: Mode | None = None
    optional: bool | None = None


class DownwardAPIVolumeFile(KubernetesStruct):
    """A file with the value of a field: of the pod, or of what one of its containers asks for."""

    path: str = ""
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: Mode | None = None


class DownwardAPIVolumeSource(KubernetesStruct):
    """Fields of the pod as files."""

    items: list[DownwardAPIVolumeFile] = []
    default_mode: Mode | None = None


class ConfigMapProjection(KubernetesStruct):
    """A ConfigMap's keys in a projected volume."""

    name: str = ""
    items: list[KeyToPath] = []
    optional: bool | None = None


class SecretProjection(KubernetesStruct):
    """A Secret's keys in a projected volume."""

    name: str = ""
    items: list[KeyToPath] = []
    optional: bool | None = None


class DownwardAPIProjection(KubernetesStruct):
    """Fields of the pod in a projected volume."""

    items: list[DownwardAPIVolumeFile] = []


class VolumeProjection(KubernetesStruct):
    """One of the sources of a projected volume: exactly one field is set."""

    config_map: ConfigMapProjection | None = None
    secret: SecretProjection | None = None
    downward_api: DownwardAPIProjection | None = msgspec.field(default=None, name="downwardAPI")


class ProjectedVolumeSource(KubernetesStruct):
    """Several sources in one directory; of two files with one path the later one stands."""

    sources: list[VolumeProjection] = []
    default_mode: Mode | None = None


class Volume(KubernetesStruct):
    """A named volume with exactly one source."""

    name: str = ""
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedVolumeSource | None = None
