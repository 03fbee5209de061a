"""Ports carried into a network namespace, here our own: what arrives, what ends, what is refused."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from kernel.errors import BadInput
from runtime.cli.port_forward import parse
from runtime.pod.forwarding import Forward, Forwarder, listen
from runtime.pod.loop import Loop


@pytest.mark.parametrize(
    ("text", "forward"),
    [("80", Forward(80, 80)), ("8080:80", Forward(8080, 80)), (":80", Forward(0, 80)), ("8080:web", Forward(8080, 81))],
)
def test_ports_as_kubectl_takes_them(text: str, forward: Forward) -> None:
    assert parse(text, {"web": 81}) == forward


@pytest.mark.parametrize("text", ["", ":", "0", "65536", "a", "1:2:3", "-1", "80:", "x:80", "0:80", "٨٠"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="port"):
        parse(text)


Connect = Callable[[], socket.socket]


class Carried:
    """A forwarder in a thread of its own, to a port that `target` listens at."""

    def __init__(self) -> None:
        self.target = socket.create_server(("127.0.0.1", 0))
        self.told: list[str] = []
        self._loop = Loop()
        self.forwarder = Forwarder(self._loop, None, self.told.append)
        [self._server] = listen(["127.0.0.1"], 0)
        self.forwarder.serve(self._server, self.target.getsockname()[1])
        self._stop, stopped = socket.socketpair()
        self._stopped = stopped
        self._loop.add(stopped.fileno(), self._loop.stop)
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self._server.getsockname(), timeout=60)

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        self._loop.close()
        for one in (self._stopped, self._server, self.target):
            one.close()


@pytest.fixture
def carried() -> Iterator[Carried]:
    made = Carried()
    yield made
    made.close()


def test_much_goes_both_ways_at_once_and_ends_half_by_half(carried: Carried) -> None:
    data = bytes(range(256)) * 20_000

    def answer() -> None:
        served, _ = carried.target.accept()
        with served:
            received = bytearray()
            while piece := served.recv(65536):
                received += piece
            # Our writer has ended and still reads: half a connection is one.
            served.sendall(bytes(received[::-1]))

    thread = threading.Thread(target=answer)
    thread.start()
    with carried.connect() as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        back = bytearray()
        while piece := client.recv(65536):
            back += piece
    thread.join()
    assert back == data[::-1]


def test_a_reader_that_stalls_holds_no_other_up(carried: Carried) -> None:
    with carried.connect() as stalled, carried.connect() as quick:
        first, _ = carried.target.accept()
        second, _ = carried.target.accept()
        with first, second:
            first.setblocking(False)
            try:
                while True:
                    first.send(bytes(65536))
            except BlockingIOError:
                pass
            second.sendall(b"hello")
            assert quick.recv(10) == b"hello"
            assert stalled.recv(1) == b"\0"


def test_what_nobody_listens_at_is_a_reset_and_told(carried: Carried) -> None:
    port = carried.target.getsockname()[1]
    carried.target.close()
    with carried.connect() as client, pytest.raises(ConnectionResetError):
        while client.recv(10):
            pass
    assert carried.told == [f"port {port} of the pod: connection refused"]
