"""hostPorts: which port of the host leads to which port of which pod, and who owns it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kernel.errors import BadInput, Conflict, HostError, NotSupported, RawpodError
from netns.addresses import ip_number

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}
ANY = "0.0.0.0"


class HostPort(NamedTuple):
    """A port of the host that leads to a port of a pod; `host_ip` "" or "0.0.0.0" means every address of the host."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}/{self.protocol}"


def checked(port: HostPort) -> HostPort:
    """The port in its one form (protocol in lower case, address never empty). Raises BadInput, NotSupported."""
    protocol = (port.protocol or "TCP").lower()
    if protocol not in PROTOCOLS:
        raise BadInput(f"protocol '{port.protocol}' is none of TCP, UDP, SCTP")
    for what, number in (("hostPort", port.host_port), ("containerPort", port.container_port)):
        if not 1 <= number <= 65535:
            raise BadInput(f"{what} '{number}' is not between 1 and 65535")
    if ":" in port.host_ip:
        raise NotSupported(f"hostIP '{port.host_ip}': pods have IPv4 addresses only")
    try:
        ip_number(port.host_ip or ANY)
    except OSError:
        raise BadInput(f"hostIP '{port.host_ip}' is not an IPv4 address") from None
    return HostPort(port.host_ip or ANY, port.host_port, port.container_port, protocol)


class PortBook:
    """The hostPorts of every pod, one file a pod below `directory`. The caller holds the network's lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def of(self, uid: str) -> list[HostPort]:
        """The pod's hostPorts, without what a damaged file does not tell."""
        try:
            text = (self._directory / uid).read_text(errors="replace")
        except FileNotFoundError:
            return []
        return [port for port in map(_read, text.splitlines()) if port is not None]

    def has(self, uid: str) -> bool:
        """Whether anything is recorded of the pod, damaged or half written too."""
        return any((self._directory / name).exists() for name in (uid, f".{uid}"))

    def uids(self) -> list[str]:
        """Every pod of which anything is recorded."""
        try:
            return sorted({name.removeprefix(".") for name in os.listdir(self._directory)})
        except FileNotFoundError:
            return []

    def write(self, uid: str, ports: Sequence[HostPort]) -> None:
        """Record the pod's hostPorts; raises Conflict where another has one of them."""
        self._check(uid, ports)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._directory / f".{uid}"
        temporary.write_text("".join(f"{p.host_ip} {p.host_port} {p.container_port} {p.protocol}\n" for p in ports))
        temporary.replace(self._directory / uid)

    def remove(self, uid: str) -> None:
        """Forget the pod's hostPorts."""
        for name in (f".{uid}", uid):
            (self._directory / name).unlink(missing_ok=True)

    def _check(self, uid: str, ports: Sequence[HostPort]) -> None:
        taken = [(port, other) for other in self.uids() if other != uid for port in self.of(other)]
        mine: list[HostPort] = []
        for port in ports:
            for other, owner in taken:
                if _collide(port, other):
                    raise Conflict(f"hostPort '{port}' belongs to pod '{owner}'")
            if any(_collide(port, other) for other in mine):
                raise Conflict(f"hostPort '{port}' is asked for twice by the same pod")
            mine.append(port)


def check_unused(port: HostPort) -> None:
    """Raise Conflict where a process of the host listens on the port: its clients would reach the pod instead."""
    if port.protocol == "sctp":
        return  # the module may not be there, and a socket would load it
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if port.protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is in TIME_WAIT does not matter
        try:
            probe.bind((port.host_ip, port.host_port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"hostPort '{port}' is in use by a process of the host") from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise HostError(f"hostIP '{port.host_ip}' is not an address of this host") from None
            raise


def _read(line: str) -> HostPort | None:
    try:
        host_ip, host_port, container_port, protocol = line.split()
        return checked(HostPort(host_ip, int(host_port), int(container_port), protocol))
    except (ValueError, RawpodError):
        return None


def _collide(one: HostPort, other: HostPort) -> bool:
    if (one.protocol, one.host_port) != (other.protocol, other.host_port):
        return False
    return ANY in (one.host_ip, other.host_ip) or one.host_ip == other.host_ip
