"""What kubelet makes of the results of a container's probes: started, ready, or to be restarted. Pure.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

from kernel.record import Record, Struct
from runtime.pod.objects import Container
from runtime.pod.objects_probe import HTTPGetAction, Probe

STARTUP, LIVENESS, READINESS = "startup", "liveness", "readiness"

SUCCESS, FAILURE, UNKNOWN = "success", "failure", "unknown"
"""Results. What is unknown, as the program of a probe could not be run, counts for nothing."""

USER_AGENT = "kube-probe/1.34"


class Exec(Record):
    """Run a program in the container: exit code 0 is success."""

    args: tuple[str, ...]


class HttpGet(Record):
    """GET `target` at `host`, "" for the pod: a status from 200 to 399 is success."""

    host: str
    port: int
    target: str
    tls: bool
    headers: tuple[tuple[str, str], ...] = ()


class TcpSocket(Record):
    """Connect to `host`, "" for the pod."""

    host: str
    port: int


class Grpc(Record):
    """Ask the pod for the health of a service; "" is the server as a whole."""

    port: int
    service: str


Action = Exec | HttpGet | TcpSocket | Grpc


class Rule(Record):
    """One probe of a container, times in seconds. `grace` is None where the pod's own grace period holds."""

    kind: str
    action: Action
    initial_delay: int = 0
    timeout: int = 1
    period: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    grace: int | None = None


def rules_of(container: Container) -> tuple[Rule, ...]:
    """The probes of a container that has its defaults."""
    given = (
        (STARTUP, container.startup_probe),
        (LIVENESS, container.liveness_probe),
        (READINESS, container.readiness_probe),
    )
    return tuple(_rule(kind, probe, container) for kind, probe in given if probe is not None)


def _rule(kind: str, probe: Probe, container: Container) -> Rule:
    return Rule(
        kind,
        _action(probe, container),
        probe.initial_delay_seconds,
        probe.timeout_seconds,
        probe.period_seconds,
        probe.success_threshold,
        probe.failure_threshold,
        probe.termination_grace_period_seconds,
    )


def _action(probe: Probe, container: Container) -> Action:
    if probe.exec is not None:
        return Exec(tuple(probe.exec.command))
    if probe.http_get is not None:
        return _http_get(probe.http_get, container)
    if probe.tcp_socket is not None:
        return TcpSocket(_address(probe.tcp_socket.host), _port(probe.tcp_socket.port, container))
    assert probe.grpc is not None
    return Grpc(probe.grpc.port, probe.grpc.service)


def _http_get(action: HTTPGetAction, container: Container) -> HttpGet:
    return HttpGet(
        host=_address(action.host),
        port=_port(action.port, container),
        target=target_of(action.path),
        tls=action.scheme == "HTTPS",
        headers=tuple((header.name, header.value) for header in action.http_headers),
    )


def target_of(path: str) -> str:
    """A path and query as a request has them: from the root, without a fragment, all other characters as %XX."""
    path = path.partition("#")[0]
    return quoted(path if path.startswith("/") else f"/{path}")


def quoted(text: str) -> str:
    """The text with what a request line cannot hold as %XX."""
    plain = frozenset(b"!#$%&'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~")
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in text.encode(errors="surrogateescape"))


def _address(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def _port(port: int | str, container: Container) -> int:
    if isinstance(port, int):
        return port
    return next(entry.container_port for entry in container.ports if entry.name == port)


class Judge(Struct):
    """What is thought of one run of a container, from its start to its end."""

    rules: dict[str, Rule]
    started: bool = True
    well: bool = True
    failed: str = ""
    runs: dict[str, tuple[str, int]] = {}

    @classmethod
    def of(cls, rules: tuple[Rule, ...]) -> Judge:
        """With a startup probe it has not started before that says so, with a readiness probe it is not ready."""
        by_kind = {rule.kind: rule for rule in rules}
        return cls(by_kind, started=STARTUP not in by_kind, well=READINESS not in by_kind)

    @property
    def ready(self) -> bool:
        """Whether requests may be sent to the container."""
        return self.started and self.well

    def asks(self, kind: str) -> bool:
        """Whether the probe has its turn: none does before the startup probe is through, and none after a failure that
        ends the container but readiness."""
        if self.failed and kind != READINESS:
            return False
        return self.started is not (kind == STARTUP)

    def add(self, kind: str, result: str) -> bool:
        """Count a result; whether started, ready or failed is another than before."""
        if result == UNKNOWN or not self.asks(kind):
            return False
        last, count = self.runs.get(kind, ("", 0))
        count = count + 1 if result == last else 1
        self.runs[kind] = (result, count)
        rule, before = self.rules[kind], (self.started, self.well, self.failed)
        if count < (rule.success_threshold if result == SUCCESS else rule.failure_threshold):
            return False
        if kind == READINESS:
            self.well = result == SUCCESS
        elif result == FAILURE:
            self.failed = kind
        elif kind == STARTUP:
            self.started = True
        return before != (self.started, self.well, self.failed)
