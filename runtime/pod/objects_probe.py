"""How a container is asked whether it is well: probes, and the four ways in which they ask."""

from __future__ import annotations

from runtime.pod.meta import IntOrString, KubernetesStruct


class ExecAction(KubernetesStruct):
    """A program run in the container; no shell is involved."""

    command: list[str] = []


class HTTPHeader(KubernetesStruct):
    """A header of the request; a name may be there several times."""

    name: str = ""
    value: str = ""


class HTTPGetAction(KubernetesStruct):
    """A GET request to a port of the container, by number or by the name it has in `ports`."""

    path: str = ""
    port: IntOrString = 0
    host: str = ""
    scheme: str = ""
    http_headers: list[HTTPHeader] = []


class TCPSocketAction(KubernetesStruct):
    """A connection to a port of the container, by number or by the name it has in `ports`."""

    port: IntOrString = 0
    host: str = ""


class GRPCAction(KubernetesStruct):
    """A call of grpc.health.v1.Health/Check."""

    port: int = 0
    service: str = ""


class Probe(KubernetesStruct):
    """Exactly one action, and when and how often it is taken; 0 stands for Kubernetes' default."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 0
    period_seconds: int = 0
    success_threshold: int = 0
    failure_threshold: int = 0
    termination_grace_period_seconds: int | None = None
