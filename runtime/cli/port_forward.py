"""`rawpod port-forward`: ports of a pod at this machine's loopback, as long as the command runs."""

import ipaddress
import json
import signal
import sys
from typing import Any

import click

from kernel.errors import BadInput, NotFound, RawpodError
from runtime.cli.pods import is_running, load
from runtime.pod import control, directory
from runtime.pod.forwarding import Forward, Forwarder, listen
from runtime.pod.loop import Loop
from runtime.settings import Settings

_LOCALHOST = ("127.0.0.1", "::1")


@click.command()
@click.option(
    "--address",
    "addresses",
    default="localhost",
    show_default=True,
    metavar="IP,…",
    help="Addresses of this machine to listen at; localhost is 127.0.0.1 and ::1, as far as there are.",
)
@click.argument("name", metavar="POD")
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE…")
@click.pass_obj
def port_forward(settings: Settings, addresses: str, name: str, ports: tuple[str, ...]) -> int:
    """Reach a pod's TCP ports from this machine, also those that listen on the pod's loopback alone.

    8080:80 leads from our port 8080 to the pod's 80; 80 from our 80; :80 from one that is free. REMOTE may be the name
    of a container's port. Ends with the pod, or by an interrupt.
    """
    uid, container, status = load(settings, name.removeprefix("pods/").removeprefix("pod/"))
    if container is not None:
        raise BadInput(f"{name!r} is one container", remedy="the containers of a pod share its ports: name the pod")
    pod = settings.pod(uid)
    places, named = _addresses(addresses), _named_ports(json.loads((pod / directory.POD).read_bytes()))
    forwards = [parse(text, named) for text in ports]
    if not is_running(status):
        raise NotFound(f"pod {directory.pod_name(status)!r} is over", remedy="see `rawpod ps -a`")
    loop = Loop()
    netns = pod / "ns" / "net"
    forwarder = Forwarder(
        loop, netns if netns.exists() else None, lambda text: print(f"rawpod: {text}", file=sys.stderr)
    )
    for forward in forwards:
        try:
            servers = listen(places, forward.local)
        except OSError as error:
            raise RawpodError(f"cannot listen at port {forward.local}: {error.strerror}") from error
        for server in servers:
            host, port = server.getsockname()[:2]
            print(f"Forwarding from {f'[{host}]' if ':' in host else host}:{port} -> {forward.remote}")
            forwarder.serve(server, forward.remote)
    sys.stdout.flush()
    lost: list[bool] = []
    monitor = control.connect(pod)
    monitor.sendall(b'{"do": "watch"}')

    def changed() -> None:
        message = control.receive(monitor)
        if message is None or not is_running(message.get("status", {})):
            lost.append(True)
            loop.stop()

    loop.add(monitor.fileno(), changed)
    loop.on_signals((signal.SIGINT, signal.SIGTERM), lambda _number: loop.stop())
    loop.run()
    if lost:
        print(f"rawpod: pod {directory.pod_name(status)!r} has ended", file=sys.stderr)
    return 1 if lost else 0


def parse(text: str, named: dict[str, int] | None = None) -> Forward:
    """[LOCAL:]REMOTE. Raises BadInput."""
    local, colon, remote = text.rpartition(":")
    inside = (named or {}).get(remote) or _port(remote, text)
    if not colon:
        return Forward(inside, inside)
    return Forward(_port(local, text) if local else 0, inside)


def _port(number: str, text: str) -> int:
    if not (number.isascii() and number.isdecimal() and 0 < int(number) < 65536):
        raise BadInput(
            f"port {text!r}", remedy="write [LOCAL:]REMOTE, numbers from 1 to 65535 or a container's port's name"
        )
    return int(number)


def _named_ports(pod: dict[str, Any]) -> dict[str, int]:
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    ports = [port for container in containers for port in container.get("ports") or ()]
    return {port["name"]: port["containerPort"] for port in ports if port.get("name")}


def _addresses(text: str) -> list[str]:
    found: list[str] = []
    for address in text.split(","):
        if address == "localhost":
            found += _LOCALHOST
            continue
        try:
            found.append(str(ipaddress.ip_address(address)))
        except ValueError:
            raise BadInput(f"address {address!r}", remedy="write IP addresses or localhost") from None
    return found
