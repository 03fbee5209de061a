"""The spawner: forked from the supervisor before that has threads or an event loop, it forks the monitors.

Everything a monitor needs is imported here once and the garbage collector is frozen, so that a monitor is a fork of
about a millisecond that shares its pages. The supervisor is never the parent of a payload, and monitors outlive both.

Requests on a SOCK_SEQPACKET socket, one JSON object each: {"spawn": {"uid": U}} is answered {"uid": U, "pid": P} or
{"uid": U, "error": "…"}; {"destroy": {"uid": U}} is answered {"uid": U, "destroyed": true} or {"uid": U, "error": "…"}.
The pod's directory with pod.json is there before it is spawned. The end of the connection ends the spawner.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from cgroups import hierarchy as cgroup_hierarchy
from kernel import credentials
from kernel.errors import RawpodError
from kernel.process import clone3, close_range
from runtime.pod import control, sandbox
from runtime.settings import Settings

_MAX_REQUEST = 64 * 1024


class Spawner(NamedTuple):
    """A running spawner as its starter sees it: a child to be waited for, and the connection."""

    pid: int
    connection: socket.socket


def start(settings: Settings) -> Spawner:
    """Fork the spawner. For a process of one thread, before it has an event loop."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _in_child(lambda: _serve(settings, theirs))
    theirs.close()
    return Spawner(pid, ours)


def launch(settings: Settings, uid: str, owner: str, *, remove: bool = False) -> int:
    """Fork a monitor for the pod whose directory is ready, and answer its pid. It is in a session of its own.

    Its control socket listens when this returns: a connection that ends tells that it is gone. With `remove` the
    monitor removes the pod with its directory and logs when it is over.
    """
    listener = control.listen(settings.pod(uid))
    system = sandbox.system_cgroup(settings, cgroup_hierarchy.find())
    cgroup_fd = system.open()
    try:
        child = clone3(0, cgroup_fd=cgroup_fd)
        if child.pid == 0:
            _in_child(lambda: _monitor(settings, uid, owner, listener, remove))
        os.close(child.pidfd)
        return child.pid
    finally:
        os.close(cgroup_fd)
        listener.close()


def _in_child(body: Callable[[], None]) -> NoReturn:
    """Run the body and end without the parent's clean-up; a failure goes to the standard error."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        body()
    except RawpodError as error:
        os.write(2, f"rawpod: {error}\n".encode())
        os._exit(error.exit_code)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(70)
    os._exit(0)


def _monitor(settings: Settings, uid: str, owner: str, listener: socket.socket, remove: bool) -> None:
    from runtime.pod import monitor

    os.setsid()
    credentials.set_name("rawpod-monitor")
    _leave_behind(listener.fileno(), settings.pod(uid) / "monitor.log")
    monitor.serve(settings, uid, listener, owner)
    if remove:
        sandbox.destroy(settings, uid)


def _leave_behind(keep: int, log: os.PathLike[str]) -> None:
    """Standard input and output away from whoever started us, the standard error to a file, no other descriptor."""
    null = os.open("/dev/null", os.O_RDWR)
    error = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for fd, target in ((null, 0), (null, 1), (error, 2)):
        os.dup2(fd, target)
    _close_all_but(keep)
    os.chdir("/")


def _close_all_but(keep: int) -> None:
    if keep > 3:
        close_range(3, keep - 1)
    close_range(keep + 1)


def _serve(settings: Settings, connection: socket.socket) -> None:
    os.setsid()
    credentials.set_name("rawpod-spawner")
    # A supervisor that is interrupted from the terminal or ended ends the connection; that is what counts.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Children that end are collected by the kernel: no zombie, and no handler to run (wait(2), NOTES).
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _close_all_but(connection.fileno())
    os.chdir("/")
    warm_up()
    while packet := _receive(connection):
        request: dict[str, Any] = json.loads(packet)
        if "spawn" in request:
            _answer(connection, request["spawn"]["uid"], lambda uid: {"pid": launch(settings, uid, "supervisor")})
        elif "destroy" in request:
            _destroy(settings, connection, request["destroy"]["uid"])


def warm_up() -> None:
    """Import all that monitors use, and keep the collector from writing into pages that they share."""
    import rootfs.images.store
    import rootfs.removal  # noqa: F401
    import runtime.pod.health
    import runtime.pod.monitor
    import runtime.pod.probe_http
    import runtime.pod.prober
    import runtime.pod.pulling  # noqa: F401
    from runtime import confinement
    from runtime.pod.compile import DEFAULT_CAPABILITIES
    from runtime.seccomp.default import default_profile

    # Compiled once: monitors have it from here.
    confinement.prepare(default_profile(DEFAULT_CAPABILITIES), no_new_privileges=True)
    gc.collect()
    gc.freeze()


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_MAX_REQUEST)
    except ConnectionError:
        return b""


def _destroy(settings: Settings, connection: socket.socket, uid: str) -> None:
    """In a child: it may have to wait for processes to end."""

    def body() -> None:
        def destroy(uid: str) -> dict[str, object]:
            sandbox.destroy(settings, uid)
            return {"destroyed": True}

        _answer(connection, uid, destroy)

    if os.fork() == 0:
        _in_child(body)


def _answer(connection: socket.socket, uid: str, action: Callable[[str], dict[str, object]]) -> None:
    answer: dict[str, object]
    try:
        answer = {"uid": uid, **action(uid)}
    except (RawpodError, OSError) as error:
        answer = {"uid": uid, "error": str(error)}
    try:
        connection.send(json.dumps(answer).encode())
    except OSError:
        return  # the supervisor is gone; its successor looks for itself
