"""Parts of a pod's spec that concern the pod as a whole: how it asks for names, and which nodes it may be on."""

from __future__ import annotations

from runtime.pod.meta import KubernetesStruct


class PodDNSConfigOption(KubernetesStruct):
    """An option of resolv.conf(5), with a value or alone."""

    name: str = ""
    value: str | None = None


class PodDNSConfig(KubernetesStruct):
    """What is added to the resolv.conf that dnsPolicy gives."""

    nameservers: list[str] = []
    searches: list[str] = []
    options: list[PodDNSConfigOption] = []


class Toleration(KubernetesStruct):
    """A taint of nodes that the pod bears. The one node there is has none."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None
