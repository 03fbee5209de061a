"""What a pod is called by itself and by others. Pure."""

from __future__ import annotations

from kernel.errors import BadInput
from runtime.pod.faults import shown
from runtime.pod.objects import Pod

CLUSTER_DOMAIN = "cluster.local"
"""What Kubernetes' installers take, and what manifests therefore spell out."""

MAX_KERNEL_NAME = 64
"""Bytes, __NEW_UTS_LEN of sethostname(2)."""


def pod_hostname(pod: Pod) -> str:
    """The pod's host name: its own, or its name cut to the 63 characters that a label may have."""
    return pod.spec.hostname or pod.metadata.name[:63].rstrip("-.")


def fqdn(pod: Pod) -> str:
    """The pod's name with its domain, which it has if it has a subdomain; "" without."""
    if not pod.spec.subdomain:
        return ""
    return f"{pod_hostname(pod)}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{CLUSTER_DOMAIN}"


def kernel_hostname(pod: Pod) -> str:
    """What sethostname(2) is given: with setHostnameAsFQDN the name with its domain. Raises BadInput for a longer one
    than the kernel keeps, where Kubernetes leaves the pod Pending, too."""
    long = fqdn(pod) if pod.spec.set_hostname_as_fqdn else ""
    if len(long) > MAX_KERNEL_NAME:
        raise BadInput(
            f"spec.setHostnameAsFQDN: {shown(long, 300)} has {len(long)} characters, and a host's name "
            f"{MAX_KERNEL_NAME} at most",
            remedy="a shorter hostname or subdomain",
        )
    return long or pod_hostname(pod)
