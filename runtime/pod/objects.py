"""The Kubernetes objects that rawpod knows, as types: Pod, ConfigMap, Secret, Deployment and ReplicaSet.

Only what rawpod carries out has a field here; Kubernetes' other fields are refused by name (runtime.pod.known). Field
meanings are Kubernetes' own: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from runtime.pod.meta import (
    KubernetesStruct,
    LabelSelector,
    ListMeta,
    Mode,
    ObjectList,
    ObjectMeta,
    OwnerReference,
    Quantity,
    Status,
    StatusCause,
    StatusDetails,
    Timestamp,
    always,
)
from runtime.pod.objects_fields import FieldSelector, ResourceFieldSelector
from runtime.pod.objects_pod import PodDNSConfig, PodDNSConfigOption, Toleration
from runtime.pod.objects_probe import ExecAction, GRPCAction, HTTPGetAction, HTTPHeader, Probe, TCPSocketAction
from runtime.pod.objects_volumes import (
    ConfigMapProjection,
    ConfigMapVolumeSource,
    DownwardAPIProjection,
    DownwardAPIVolumeFile,
    DownwardAPIVolumeSource,
    EmptyDirVolumeSource,
    HostPathVolumeSource,
    KeyToPath,
    ProjectedVolumeSource,
    SecretProjection,
    SecretVolumeSource,
    Volume,
    VolumeMount,
    VolumeProjection,
)
from runtime.pod.status import (
    Condition,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    DeploymentStatus,
    PodIP,
    PodStatus,
    ReplicaSetStatus,
)

__all__ = [
    "KINDS",
    "AppArmorProfile",
    "Capabilities",
    "Condition",
    "ConfigMap",
    "ConfigMapProjection",
    "ConfigMapVolumeSource",
    "Container",
    "ContainerPort",
    "ContainerState",
    "ContainerStateRunning",
    "ContainerStateTerminated",
    "ContainerStateWaiting",
    "ContainerStatus",
    "Deployment",
    "DeploymentSpec",
    "DeploymentStatus",
    "DeploymentStrategy",
    "DownwardAPIProjection",
    "DownwardAPIVolumeFile",
    "DownwardAPIVolumeSource",
    "EmptyDirVolumeSource",
    "EnvFromSource",
    "EnvVar",
    "EnvVarSource",
    "ExecAction",
    "FieldSelector",
    "GRPCAction",
    "HTTPGetAction",
    "HTTPHeader",
    "HostAlias",
    "HostPathVolumeSource",
    "KeySelector",
    "KeyToPath",
    "KubernetesObject",
    "KubernetesStruct",
    "LabelSelector",
    "ListMeta",
    "LocalObjectReference",
    "Mode",
    "ObjectList",
    "ObjectMeta",
    "OwnerReference",
    "Pod",
    "PodDNSConfig",
    "PodDNSConfigOption",
    "PodIP",
    "PodSecurityContext",
    "PodSpec",
    "PodStatus",
    "PodTemplateSpec",
    "Probe",
    "ProjectedVolumeSource",
    "Quantity",
    "ReplicaSet",
    "ReplicaSetSpec",
    "ReplicaSetStatus",
    "ResourceFieldSelector",
    "ResourceRequirements",
    "SeccompProfile",
    "Secret",
    "SecretProjection",
    "SecretVolumeSource",
    "SecurityContext",
    "SourceSelector",
    "Status",
    "StatusCause",
    "StatusDetails",
    "Sysctl",
    "TCPSocketAction",
    "Timestamp",
    "Toleration",
    "Volume",
    "VolumeMount",
    "VolumeProjection",
    "dump",
]


class KeySelector(KubernetesStruct):
    """A key of a ConfigMap or Secret."""

    name: str = ""
    key: str = ""
    optional: bool | None = None


class EnvVarSource(KubernetesStruct):
    """Where a variable's value comes from: one of these."""

    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class EnvVar(KubernetesStruct):
    """An environment variable; `$(NAME)` in the value stands for a variable listed before."""

    name: str = ""
    value: str = ""
    value_from: EnvVarSource | None = None


class SourceSelector(KubernetesStruct):
    """A ConfigMap or Secret as a whole."""

    name: str = ""
    optional: bool | None = None


class EnvFromSource(KubernetesStruct):
    """All keys of a ConfigMap or Secret as variables, each name with the prefix."""

    prefix: str = ""
    config_map_ref: SourceSelector | None = None
    secret_ref: SourceSelector | None = None


class ContainerPort(KubernetesStruct):
    """A port the container listens on; with `hostPort` it is reachable at the host too."""

    name: str = ""
    container_port: int = 0
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")
    protocol: str = ""


class ResourceRequirements(KubernetesStruct):
    """What a container may use at most, and what it is meant to get."""

    limits: dict[str, Quantity] = {}
    requests: dict[str, Quantity] = {}


class LocalObjectReference(KubernetesStruct):
    """An object of the pod's namespace."""

    name: str = ""


class Capabilities(KubernetesStruct):
    """Changes to the default capabilities; names without CAP_, or ALL."""

    add: list[str] = []
    drop: list[str] = []


class SeccompProfile(KubernetesStruct):
    """The system call filter: RuntimeDefault, Unconfined, or Localhost with a file below ROOT/seccomp."""

    type: str = ""
    localhost_profile: str = ""


class AppArmorProfile(KubernetesStruct):
    """Unconfined, or Localhost with the name of a profile that is loaded into the host's kernel."""

    type: str = ""
    localhost_profile: str = ""


class SecurityContext(KubernetesStruct):
    """What a container's processes may do; overrides the pod's."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None
    proc_mount: str = ""


class Container(KubernetesStruct):
    """One container of a pod."""

    name: str = ""
    image: str = ""
    image_pull_policy: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    ports: list[ContainerPort] = []
    env_from: list[EnvFromSource] = []
    env: list[EnvVar] = []
    resources: ResourceRequirements | None = None
    volume_mounts: list[VolumeMount] = []
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    security_context: SecurityContext | None = None
    stdin: bool = False
    tty: bool = False
    restart_policy: str = ""
    termination_message_path: str = ""
    termination_message_policy: str = ""

    @property
    def is_sidecar(self) -> bool:
        """Of an init container: it goes on beside the pod's containers, and is started again whenever it ends."""
        return self.restart_policy == "Always"


class HostAlias(KubernetesStruct):
    """Lines for the pod's /etc/hosts."""

    ip: str = ""
    hostnames: list[str] = []


class Sysctl(KubernetesStruct):
    """A kernel parameter of the pod's namespaces."""

    name: str = ""
    value: str = ""


class PodSecurityContext(KubernetesStruct):
    """Defaults for all containers of the pod."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] = []
    supplemental_groups_policy: str = ""
    fs_group: int | None = None
    fs_group_change_policy: str = ""
    sysctls: list[Sysctl] = []
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None


class PodSpec(KubernetesStruct):
    """What a pod consists of."""

    containers: list[Container] = []
    init_containers: list[Container] = []
    volumes: list[Volume] = []
    restart_policy: str = ""
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool | None = msgspec.field(default=None, name="setHostnameAsFQDN")
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    host_users: bool | None = None
    host_aliases: list[HostAlias] = []
    security_context: PodSecurityContext | None = None
    image_pull_secrets: list[LocalObjectReference] = []
    node_name: str = ""
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    dns_policy: str = ""
    dns_config: PodDNSConfig | None = None
    enable_service_links: bool | None = None

    @property
    def all_containers(self) -> list[Container]:
        """Init containers and containers, in the order in which they are started."""
        return [*self.init_containers, *self.containers]


class Pod(KubernetesStruct):
    """Containers that share network, ipc and uts namespaces."""

    api_version: str = always("v1")
    kind: str = always("Pod")
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus | None = None


class ConfigMap(KubernetesStruct):
    """Configuration as keys and values; binaryData in base64."""

    api_version: str = always("v1")
    kind: str = always("ConfigMap")
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}
    immutable: bool | None = None


class Secret(KubernetesStruct):
    """Confidential keys and values; data in base64, stringData as it is."""

    api_version: str = always("v1")
    kind: str = always("Secret")
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    type: str = ""
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}
    immutable: bool | None = None

    def __repr__(self) -> str:
        """Without the values: representations end up in logs and tracebacks."""
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, keys {sorted({*self.data, *self.string_data})})"


class PodTemplateSpec(KubernetesStruct):
    """The pod that a Deployment or ReplicaSet makes copies of."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)


class DeploymentStrategy(KubernetesStruct):
    """How pods are replaced when the template changes; Recreate today."""

    type: str = ""


class DeploymentSpec(KubernetesStruct):
    """A number of pods kept alive, and what happens when their template changes."""

    replicas: int | None = None
    selector: LabelSelector = msgspec.field(default_factory=LabelSelector)
    template: PodTemplateSpec = msgspec.field(default_factory=PodTemplateSpec)
    strategy: DeploymentStrategy | None = None
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None


class Deployment(KubernetesStruct):
    """Replicas of a pod, through a ReplicaSet for each version of its template."""

    api_version: str = always("apps/v1")
    kind: str = always("Deployment")
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: DeploymentSpec = msgspec.field(default_factory=DeploymentSpec)
    status: DeploymentStatus | None = None


class ReplicaSetSpec(KubernetesStruct):
    """A number of pods kept alive."""

    replicas: int | None = None
    selector: LabelSelector = msgspec.field(default_factory=LabelSelector)
    template: PodTemplateSpec = msgspec.field(default_factory=PodTemplateSpec)
    min_ready_seconds: int = 0


class ReplicaSet(KubernetesStruct):
    """Replicas of one version of a pod."""

    api_version: str = always("apps/v1")
    kind: str = always("ReplicaSet")
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: ReplicaSetSpec = msgspec.field(default_factory=ReplicaSetSpec)
    status: ReplicaSetStatus | None = None


KubernetesObject: TypeAlias = Pod | ConfigMap | Secret | Deployment | ReplicaSet

KINDS: dict[tuple[str, str], type[KubernetesObject]] = {
    ("v1", "Pod"): Pod,
    ("v1", "ConfigMap"): ConfigMap,
    ("v1", "Secret"): Secret,
    ("apps/v1", "Deployment"): Deployment,
    ("apps/v1", "ReplicaSet"): ReplicaSet,
}
"""The type of each supported apiVersion and kind."""


def dump(value: KubernetesStruct) -> bytes:
    """Encode as JSON."""
    return msgspec.json.encode(value)
