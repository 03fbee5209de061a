"""What must hold for the probes of a container."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runtime.pod import names
from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.objects import Container
from runtime.pod.objects_probe import ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction

_HEADER = re.compile(r"[-A-Za-z0-9]+\Z")
_MAX = 2**31 - 1
_ACTIONS = "exec, httpGet, tcpSocket or grpc"


def probes_faults(container: Container, path: Path) -> Iterator[Fault]:
    """All faults of a container's three probes."""
    for name, probe in _given(container):
        yield from _probe(probe, name, container, (*path, name))


def needless_probes(container: Container, path: Path) -> Iterator[Fault]:
    """The probes of an init container, of which nothing is awaited but its end."""
    for name, _ in _given(container):
        yield Fault((*path, name), "an init container has no probes", "restartPolicy: Always, for a sidecar")


def _given(container: Container) -> Iterator[tuple[str, Probe]]:
    for name, probe in (
        ("livenessProbe", container.liveness_probe),
        ("readinessProbe", container.readiness_probe),
        ("startupProbe", container.startup_probe),
    ):
        if probe is not None:
            yield name, probe


def _probe(probe: Probe, name: str, container: Container, path: Path) -> Iterator[Fault]:
    given = [action for action in (probe.exec, probe.http_get, probe.tcp_socket, probe.grpc) if action is not None]
    if len(given) != 1:
        yield Fault(path, "needs exactly one action", _ACTIONS)
    for action in given:
        yield from action_faults(action, container, path)
    for field, value in (
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ):
        if not 0 <= value <= _MAX:
            yield Fault((*path, field), f"{value} is out of range", f"0 to {_MAX}")
    if name != "readinessProbe" and probe.success_threshold not in (0, 1):
        yield Fault(
            (*path, "successThreshold"), f"{probe.success_threshold} successes of a {name}", "1, or leave it out"
        )
    grace = probe.termination_grace_period_seconds
    if grace is not None and name == "readinessProbe":
        yield Fault((*path, "terminationGracePeriodSeconds"), "a readinessProbe ends nothing", "remove it")
    elif grace is not None and not 1 <= grace <= _MAX:
        yield Fault((*path, "terminationGracePeriodSeconds"), f"{grace} is out of range", f"1 to {_MAX}")


def action_faults(
    action: ExecAction | HTTPGetAction | TCPSocketAction | GRPCAction, container: Container, path: Path
) -> Iterator[Fault]:
    """The faults of one action, at the path of what it belongs to."""
    if isinstance(action, ExecAction):
        yield from _exec(action, (*path, "exec", "command"))
    elif isinstance(action, HTTPGetAction):
        yield from _http_get(action, container, (*path, "httpGet"))
    elif isinstance(action, TCPSocketAction):
        yield from _port(action.port, container, (*path, "tcpSocket", "port"))
        yield from _host(action.host, (*path, "tcpSocket", "host"))
    else:
        yield from _port(action.port, container, (*path, "grpc", "port"))


def _exec(action: ExecAction, path: Path) -> Iterator[Fault]:
    if not action.command:
        yield Fault(path, "required", "the program to run, and its arguments")
    elif not action.command[0]:
        yield Fault((*path, 0), "empty", "the program to run")
    for index, word in enumerate(action.command):
        if "\0" in word:
            yield Fault((*path, index), "contains a NUL byte", "remove it")


def _http_get(action: HTTPGetAction, container: Container, path: Path) -> Iterator[Fault]:
    yield from _port(action.port, container, (*path, "port"))
    yield from _host(action.host, (*path, "host"))
    if action.scheme not in ("", "HTTP", "HTTPS"):
        yield Fault((*path, "scheme"), f"unknown scheme {shown(action.scheme)}", "HTTP or HTTPS")
    for index, header in enumerate(action.http_headers):
        place = (*path, "httpHeaders", index)
        if not _HEADER.match(header.name):
            yield Fault((*place, "name"), f"{shown(header.name)} is not a header's name", "letters, digits and '-'")
        if any((ord(letter) < 32 and letter != "\t") or letter == "\x7f" for letter in header.value):
            yield Fault((*place, "value"), "contains control characters", "text on one line")


def _port(port: int | str, container: Container, path: Path) -> Iterator[Fault]:
    if isinstance(port, int):
        if not 1 <= port <= 65535:
            yield Fault(path, f"{port} is not a port" if port else "required", "1 to 65535")
        return
    known = [entry.name for entry in container.ports if entry.name]
    if rule := names.port(port):
        yield Fault(path, f"{shown(port)} is not a port's name", f"a number, or {rule}")
    elif port not in known:
        yield Fault(path, f"no port {shown(port)} in ports", nearest(port, known) or "declare it in ports")


def _host(host: str, path: Path) -> Iterator[Fault]:
    """A name would be looked up at each probe, by a monitor that must not wait for an answer."""
    if host and host != "localhost" and names.address(host):
        yield Fault(path, f"{shown(host)} is no address; names are not supported by rawpod yet", "an address")
