"""The values that Kubernetes gives to what a manifest leaves out."""

from __future__ import annotations

from runtime.pod import termination
from runtime.pod.objects import (
    Container,
    Deployment,
    DeploymentStrategy,
    KubernetesObject,
    Pod,
    PodSpec,
    Probe,
    ReplicaSet,
    Secret,
)
from runtime.pod.pullpolicy import default_policy

NAMESPACE = "default"
GRACE_PERIOD_SECONDS = 30
REVISION_HISTORY_LIMIT = 10


def apply(obj: KubernetesObject) -> KubernetesObject:
    """Fill in what was left out, in place, and return the object. Applying twice changes nothing."""
    obj.metadata.namespace = obj.metadata.namespace or NAMESPACE
    if isinstance(obj, Pod):
        _pod_spec(obj.spec)
        _requests(obj.spec)
    elif isinstance(obj, (Deployment, ReplicaSet)):
        _workload(obj)
    elif isinstance(obj, Secret):
        _secret(obj)
    return obj


def _workload(obj: Deployment | ReplicaSet) -> None:
    if obj.spec.replicas is None:
        obj.spec.replicas = 1
    _pod_spec(obj.spec.template.spec)
    if isinstance(obj, Deployment):
        if obj.spec.strategy is None or not obj.spec.strategy.type:
            obj.spec.strategy = DeploymentStrategy(type="Recreate")
        if obj.spec.revision_history_limit is None:
            obj.spec.revision_history_limit = REVISION_HISTORY_LIMIT


def _pod_spec(spec: PodSpec) -> None:
    spec.restart_policy = spec.restart_policy or "Always"
    if spec.termination_grace_period_seconds is None:
        spec.termination_grace_period_seconds = GRACE_PERIOD_SECONDS
    spec.dns_policy = spec.dns_policy or "ClusterFirst"
    if spec.enable_service_links is None:
        spec.enable_service_links = True
    for container in spec.all_containers:
        _container(container, spec.host_network)


def _requests(spec: PodSpec) -> None:
    """Of pods, not of templates: who lowers a template's limit later has left the request out there, too."""
    for container in spec.all_containers:
        if container.resources:
            container.resources.requests = {**container.resources.limits, **container.resources.requests}


def _container(container: Container, host_network: bool) -> None:
    container.image_pull_policy = container.image_pull_policy or default_policy(container.image)
    for probe in (container.liveness_probe, container.readiness_probe, container.startup_probe):
        if probe is not None:
            _probe(probe)
    container.termination_message_path = container.termination_message_path or termination.DEFAULT_PATH
    container.termination_message_policy = container.termination_message_policy or termination.FILE
    for port in container.ports:
        port.protocol = port.protocol or "TCP"
        if host_network and not port.host_port:
            port.host_port = port.container_port


def _probe(probe: Probe) -> None:
    probe.timeout_seconds = probe.timeout_seconds or 1
    probe.period_seconds = probe.period_seconds or 10
    probe.success_threshold = probe.success_threshold or 1
    probe.failure_threshold = probe.failure_threshold or 3
    if probe.http_get is not None:
        probe.http_get.path = probe.http_get.path or "/"
        probe.http_get.scheme = probe.http_get.scheme or "HTTP"


def _secret(secret: Secret) -> None:
    """stringData is for writing only: it is merged into data, over keys that are there."""
    from base64 import b64encode

    secret.type = secret.type or "Opaque"
    for key, value in secret.string_data.items():
        secret.data[key] = b64encode(value.encode()).decode()
    secret.string_data = {}
