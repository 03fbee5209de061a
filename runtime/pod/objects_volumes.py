"""The volumes of a pod as Kubernetes writes them, and their places in containers."""

from __future__ import annotations

from runtime.pod.meta import KubernetesStruct, Mode, Quantity


class VolumeMount(KubernetesStruct):
    """A volume of the pod, mounted in a container."""

    name: str = ""
    mount_path: str = ""
    read_only: bool = False


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


class Volume(KubernetesStruct):
    """A named volume with exactly one source."""

    name: str = ""
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
