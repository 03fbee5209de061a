"""The monitor's control socket: one JSON object a packet over SOCK_SEQPACKET (unix(7)).

To the monitor: {"do": "watch"}, {"do": "stop", "grace": seconds or null}, {"do": "refresh"} after pod.json or
values.json changed, {"do": "signal", "container": name, "signal": number},
{"do": "attach", "container": name, "outputs": 1 or 2, "stdin": bool} with as many ends of pipes (SCM_RIGHTS), until the
connection ends, {"do": "resize", "container": name, "rows": number, "columns": number}.
From it: {"status": {…}} to watchers, at once and after every change; {"done": true} or {"error": "…"} to the others.
The end of the connection means that the monitor is gone.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from kernel.errors import BadInput, NotFound, RawpodError
from kernel.peers import peer_uid
from runtime.pod.loop import READ, WRITE, Loop

SOCKET = "monitor.sock"
MAX_PACKET = 1024 * 1024
_MAX_FDS = 3

Message = dict[str, Any]


class Handler(Protocol):
    """What the monitor does for its clients. Errors of the tree go back as {"error": …}."""

    def stop_requested(self, grace: float | None, done: Callable[[], None]) -> None:
        """Terminate the pod, by default with its own grace period; call `done` when its sandbox is gone."""

    def refresh_requested(self) -> None:
        """Read the pod's labels, annotations, ConfigMaps and Secrets again and show them in its volumes."""

    def signal_requested(self, container: str | None, signum: int) -> None:
        """Send a signal to a container's first process."""

    def attach_requested(self, container: str | None, outputs: list[int], stdin: int) -> Callable[[], None]:
        """Copy a container's streams; what ends that. Takes the descriptors over unless it raises."""

    def resize_requested(self, container: str | None, rows: int, columns: int) -> None:
        """Give a container's terminal a size."""

    def current_status(self) -> Message:
        """The status as it is now."""


def listen(directory: Path) -> socket.socket:
    """The listening socket in the pod's directory, mode 0600; one left by a dead monitor is replaced."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    with contextlib.suppress(FileNotFoundError):
        (directory / SOCKET).unlink()
    # bind(2) gives the file the mode of the socket's own inode, so that it is never open to others for a moment.
    os.fchmod(server.fileno(), 0o600)
    with _short_path(directory) as path:
        server.bind(path)
    server.listen(128)
    return server


@contextlib.contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """A socket's path has at most 107 bytes (unix(7)) and a pod's directory may be longer: go by its descriptor."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


class Server:
    """Serves the control socket from the monitor's loop. A slow client never holds the monitor up."""

    def __init__(self, loop: Loop, listener: socket.socket, handler: Handler) -> None:
        self._loop, self._listener, self._handler = loop, listener, handler
        self._clients: dict[int, _Client] = {}
        loop.add(listener.fileno(), self._acceptable)

    def _acceptable(self) -> None:
        self._accept()

    def _accept(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return False
        # The mode keeps others out, and this whoever was handed the socket's directory (CVE-2020-15257).
        if peer_uid(connection) not in (0, os.geteuid()):
            connection.close()
            return True
        connection.setblocking(False)
        fd = connection.fileno()
        self._clients[fd] = _Client(connection)
        self._loop.add(fd, lambda: self._serve(fd))
        return True

    def _serve(self, fd: int) -> None:
        client = self._clients[fd]
        if client.behind and self._send_status(client):
            self._loop.change(fd, READ)
        try:
            packet, fds, _, _ = socket.recv_fds(client.connection, MAX_PACKET, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        if not packet:
            self._drop(fd)
            return
        try:
            self._obey(client, json.loads(packet), fds)
        except (RawpodError, OSError) as error:
            client.send({"error": str(error)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            client.send({"error": f"malformed request: {error}"})
        finally:
            for one in fds:  # those that nobody has taken
                os.close(one)

    def _obey(self, client: "_Client", message: Message, fds: list[int]) -> None:
        match message["do"]:
            case "watch":
                client.watching = True
                self._send_status(client)
            case "stop":
                grace = message.get("grace")
                grace = None if grace is None else float(grace)
                self._handler.stop_requested(grace, client.done)
            case "refresh":
                self._handler.refresh_requested()
                client.send({"done": True})
            case "signal":
                self._handler.signal_requested(message.get("container"), int(message["signal"]))
                client.send({"done": True})
            case "attach":
                self._attach(client, message, fds)
            case "resize":
                self._handler.resize_requested(message.get("container"), int(message["rows"]), int(message["columns"]))
                client.send({"done": True})
            case other:
                client.send({"error": f"unknown request {other!r}"})

    def _attach(self, client: "_Client", message: Message, fds: list[int]) -> None:
        from runtime.pod import attaching

        outputs, stdin = int(message["outputs"]), bool(message["stdin"])
        if client.detach is not None or outputs not in (1, 2):
            raise BadInput("attach takes one or two outputs, once a connection")
        attaching.check(fds, outputs, stdin)
        client.detach = self._handler.attach_requested(
            message.get("container"), fds[:outputs], fds[-1] if stdin else -1
        )
        fds.clear()
        client.send({"done": True})

    def publish(self) -> None:
        """Send the present status to all watchers; one that does not read gets the newest when it does."""
        for client in list(self._clients.values()):
            if client.watching and not client.behind:
                self._send_status(client)

    def _send_status(self, client: "_Client") -> bool:
        client.behind = not client.send({"status": self._handler.current_status()})
        if client.behind:
            self._loop.change(client.connection.fileno(), READ | WRITE)
        return not client.behind

    def _drop(self, fd: int) -> None:
        self._loop.remove(fd)
        client = self._clients.pop(fd)
        if client.detach is not None:
            client.detach()
        client.connection.close()

    def close(self) -> None:
        """Close all connections: for the clients, the end of the monitor. Who has asked something gets an answer."""
        while self._accept():
            pass
        for fd in list(self._clients):
            self._serve(fd)
        self._loop.remove(self._listener.fileno())
        self._listener.close()
        for fd in list(self._clients):
            self._drop(fd)


class _Client:
    __slots__ = ("behind", "connection", "detach", "watching")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.watching = False
        self.behind = False
        self.detach: Callable[[], None] | None = None

    def done(self) -> None:
        self.send({"done": True})

    def send(self, message: Message) -> bool:
        """Whether there was room. A client that is gone is noticed at the next read."""
        try:
            self.connection.send(json.dumps(message).encode())
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def connect(directory: Path) -> socket.socket:
    """A connection to the monitor of the pod in `directory`; NotFound when none is listening."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        with _short_path(directory) as path:
            client.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        client.close()
        raise NotFound(f"pod {directory.name!r} has no running monitor") from None
    return client


def receive(connection: socket.socket) -> Message | None:
    """The next message, None at the end of the connection."""
    try:
        packet = connection.recv(MAX_PACKET)
    except ConnectionError:
        return None
    message: Message | None = json.loads(packet) if packet else None
    return message


def request(directory: Path, message: Message) -> Message:
    """Ask the monitor something and wait for the answer; its error is raised here."""
    with connect(directory) as connection:
        connection.send(json.dumps(message).encode())
        answer = receive(connection)
    if answer is None:
        raise RawpodError(f"the monitor of pod {directory.name!r} ended without an answer")
    if "error" in answer:
        raise RawpodError(str(answer["error"]))
    return answer
