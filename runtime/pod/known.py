"""Kubernetes' fields that rawpod does not carry out yet.

They are refused by name rather than ignored, and told apart from misspelt ones.
"""

from __future__ import annotations

from runtime.pod import objects

_META = "generateName managedFields selfLink finalizers deletionGracePeriodSeconds"

_BY_TYPE: dict[type, str] = {
    objects.ObjectMeta: _META,
    objects.LabelSelector: "matchExpressions",
    objects.EnvVarSource: "fileKeyRef",
    objects.ResourceRequirements: "claims",
    objects.SecurityContext: "privileged seLinuxOptions windowsOptions",
    objects.Container: "lifecycle restartPolicyRules resizePolicy stdinOnce volumeDevices",
    objects.Volume: (
        "persistentVolumeClaim csi nfs iscsi image ephemeral fc flexVolume flocker gitRepo "
        "glusterfs gcePersistentDisk awsElasticBlockStore azureDisk azureFile cephfs cinder photonPersistentDisk "
        "portworxVolume quobyte rbd scaleIO storageos vsphereVolume"
    ),
    objects.VolumeProjection: "serviceAccountToken clusterTrustBundle podCertificate",
    objects.PodSecurityContext: "seLinuxOptions seLinuxChangePolicy windowsOptions",
    objects.PodSpec: (
        "ephemeralContainers affinity automountServiceAccountToken "
        "hostnameOverride os "
        "overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims resources "
        "runtimeClassName schedulerName schedulingGates serviceAccount serviceAccountName "
        "shareProcessNamespace topologySpreadConstraints"
    ),
    objects.DeploymentSpec: "paused progressDeadlineSeconds",
    objects.DeploymentStrategy: "rollingUpdate",
}

UNSUPPORTED: dict[type, frozenset[str]] = {kind: frozenset(names.split()) for kind, names in _BY_TYPE.items()}
"""For each of our types, the fields Kubernetes has and rawpod has not."""

_KINDS = (
    "Binding CronJob CustomResourceDefinition DaemonSet Endpoints EndpointSlice Event HorizontalPodAutoscaler Ingress "
    "IngressClass Job LimitRange Namespace NetworkPolicy Node PersistentVolume PersistentVolumeClaim "
    "PodDisruptionBudget PodTemplate PriorityClass ReplicationController ResourceQuota Role RoleBinding ClusterRole "
    "ClusterRoleBinding RuntimeClass Service ServiceAccount StatefulSet StorageClass"
)
UNSUPPORTED_KINDS = frozenset(_KINDS.split())
"""Kubernetes' other kinds, so that a Service is called unsupported and a Deploment misspelt."""

_SAME_AS_OURS = {
    "os": {"name": "linux"},
    "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
    "schedulerName": "default-scheduler",
}


def asks_for_nothing(name: str, value: object) -> bool:
    """Whether an unsupported field has a value that rawpod fulfils as it is: nothing, or off.

    `privileged: false` is kept by doing nothing.
    """
    return value is None or value is False or value in ("", [], {}) or _SAME_AS_OURS.get(name) == value
