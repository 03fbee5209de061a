"""References to fields of a pod and of its containers, for the environment and for volumes."""

from __future__ import annotations

from runtime.pod.meta import KubernetesStruct, Quantity


class FieldSelector(KubernetesStruct):
    """A field of the pod itself, as "metadata.name"."""

    field_path: str = ""
    api_version: str = ""


class ResourceFieldSelector(KubernetesStruct):
    """What a container asks for, as "limits.memory", in units of `divisor` and rounded up."""

    container_name: str = ""
    resource: str = ""
    divisor: Quantity | None = None
