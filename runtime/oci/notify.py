"""$NOTIFY_SOCKET: a container tells whoever supervises it that it is ready (sd_notify(3)), as with crun.

create   makes a directory of the container's, which the container sees at the path that the variable holds
start    listens in it, and sends on that the container is ready, with the number that its process has outside

The supervisor's own socket is never shown to a container, which could speak to it in the runtime's name: of what the
container sends, only that it is ready goes on.
"""

from __future__ import annotations

import _socket
import os
import select

from kernel.errors import ContainerError
from runtime import spec

VARIABLE = "NOTIFY_SOCKET"
_DIRECTORY, _SOCKET = "notify", "notify"
_ABSTRACT = "/run/notify/socket"  # where the variable names no path
_READY = b"READY=1"
_MAX = 4096


def prepare(config: spec.Config, directory: str) -> None:
    """Give the container the directory that its socket will be in, if we were told of a supervisor."""
    address = os.environ.get(VARIABLE, "")
    if not address or config.process is None:
        return
    source = os.path.join(directory, _DIRECTORY)
    os.mkdir(source, 0o755)
    os.chmod(source, 0o755)
    inside = address if address.startswith("/") else _ABSTRACT
    options = ["bind", "nosuid", "nodev", "noexec", "ro"]
    config.mounts = [*config.mounts, spec.Mount(destination=inside, type="bind", source=source, options=options)]
    config.process.env = [*config.process.env, f"{VARIABLE}={inside}/{_SOCKET}"]


def listen(directory: str) -> _socket.socket | None:
    """The container's socket, before the container is started; None where nobody waits for its word."""
    source = os.path.join(directory, _DIRECTORY)
    if not os.environ.get(VARIABLE) or not os.path.isdir(source):
        return None
    end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    held = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The way to it may be longer than the 107 bytes of a socket's path (unix(7)).
        end.bind(f"/proc/self/fd/{held}/{_SOCKET}")
    finally:
        os.close(held)
    # Whoever the container's process is: its directory is seen by the container alone.
    os.chmod(os.path.join(source, _SOCKET), 0o777)
    return end


def forward(end: _socket.socket, pid: int, pidfd: int) -> None:
    """Wait until the container says that it is ready, or ends; tell the supervisor. Raises ContainerError."""
    poll = select.poll()
    poll.register(end.fileno(), select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if end.fileno() in ready:
            if _READY in end.recv(_MAX).split(b"\n"):
                _tell(_READY, b"MAINPID=%d" % pid)
                return
        elif pidfd in ready:
            return  # without a word


def forward_aside(end: _socket.socket, pid: int, pidfd: int) -> None:
    """The same in a process of its own, which ends with the container at the latest."""
    if os.fork() == 0:
        try:
            forward(end, pid, pidfd)
        finally:
            os._exit(0)
    end.close()


def forget(directory: str) -> None:
    """Remove the container's socket and its directory."""
    source = os.path.join(directory, _DIRECTORY)
    if os.path.isdir(source):
        for name in os.listdir(source):
            os.unlink(os.path.join(source, name))
        os.rmdir(source)


def _tell(*lines: bytes) -> None:
    address = os.environ[VARIABLE]
    end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        for line in lines:
            end.sendto(line, "\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        raise ContainerError(f"{VARIABLE} {address!r}: {os.strerror(error.errno or 0).lower()}") from None
    finally:
        end.close()
