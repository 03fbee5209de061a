"""Network namespaces for tests: pods without processes, and an outside world behind the host's uplink."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest

from kernel.process import CLONE_NEWNET, setns, unshare
from netns.attach import Attachment, Network
from netns.loopback import raise_loopback
from netns.namespace import entered
from runtime.settings import Settings

HOST_ADDRESS, OUTSIDE_ADDRESS = "192.0.2.1", "192.0.2.2"


class Namespace:
    """A network namespace that lives as long as its descriptor."""

    def __init__(self) -> None:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            unshare(CLONE_NEWNET)
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            setns(home, CLONE_NEWNET)
        finally:
            os.close(home)

    @property
    def path(self) -> Path:
        """A file for the namespace, as if it were pinned there."""
        return Path(f"/proc/{os.getpid()}/fd/{self.fd}")

    def close(self) -> None:
        """Let the kernel end it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def listen(self, port: int, address: str = "0.0.0.0") -> Echo:
        """A server inside."""
        with entered(self.fd):
            return Echo(address, port)

    def ask(self, address: str, port: int, patience: float = 30.0) -> str:
        """What a server answers to a client inside; OSError where it cannot be reached."""
        with entered(self.fd):
            return ask(address, port, patience)

    def run(self, *command: str) -> str:
        """The output of a program inside."""
        with entered(self.fd):
            return run(*command)


class Echo:
    """A TCP server that tells each client the address it sees it at."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.sendall(peer[0].encode())

    def close(self) -> None:
        """Stop."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def ask(address: str, port: int, patience: float = 30.0) -> str:
    """What a server answers to a client of the calling thread's namespace."""
    with socket.create_connection((address, port), timeout=patience) as connection:
        return connection.recv(64).decode()


def run(*command: str) -> str:
    """The output of a program."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Lab:
    """A network, and pods on it that go with the test."""

    def __init__(self, settings: Settings, *, internal: bool = False) -> None:
        self.bridge = settings.bridge
        self.network = Network(settings.bridge, settings.subnet, settings.state, internal)
        self.namespaces: dict[str, Namespace] = {}
        self._closers: list[Callable[[], None]] = []

    def pod(self, uid: str) -> tuple[Namespace, Attachment]:
        """A pod on the network."""
        namespace = self.namespaces[uid] = Namespace()
        return namespace, self.network.attach(uid, namespace.fd)

    def serve(self, namespace: Namespace, port: int, address: str = "0.0.0.0") -> None:
        """A server inside until the test's end."""
        self._closers.append(namespace.listen(port, address).close)

    def serve_on_host(self, address: str, port: int) -> None:
        """A server of the host until the test's end."""
        self._closers.append(Echo(address, port).close)

    def close(self) -> None:
        """Take every pod away."""
        for closer in self._closers:
            closer()
        for uid, namespace in self.namespaces.items():
            namespace.close()
            self.network.detach(uid, namespace_gone=True)


@pytest.fixture
def lab(settings: Settings) -> Iterator[Lab]:
    """A network with access to the outside."""
    with closing(Lab(settings)) as lab:
        yield lab


@pytest.fixture
def internal(settings: Settings) -> Iterator[Lab]:
    """A network without."""
    with closing(Lab(settings, internal=True)) as lab:
        yield lab


@pytest.fixture
def outside(host: None) -> Iterator[Namespace]:
    """The rest of the world: it knows the host's address on their common link, and no way to the pods."""
    with Namespace() as world:
        with entered(world.fd):
            raise_loopback()
        run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "world", "netns", str(world.path))
        run("ip", "address", "add", f"{HOST_ADDRESS}/24", "dev", "uplink")
        run("ip", "link", "set", "uplink", "up")
        world.run("ip", "address", "add", f"{OUTSIDE_ADDRESS}/24", "dev", "world")
        world.run("ip", "link", "set", "world", "up")
        yield world
        run("ip", "link", "delete", "uplink")
