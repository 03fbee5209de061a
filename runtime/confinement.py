"""Putting a seccomp filter in force, and handing its listener to the agent that the profile names.

The filter is compiled before clone3 and loaded by the child as its last act but one, so that it need not allow what the
runtime does. What it must allow: execve(2) and fcntl(2) or ioctl(2) for the relay; capset(2) without noNewPrivileges;
sendmsg(2) and recvmsg(2) where calls go to a listener. Without noNewPrivileges loading takes CAP_SYS_ADMIN, which is
kept just so long (seccomp(2)).
"""

from __future__ import annotations

import _socket
import os
import struct

from kernel import events
from kernel.credentials import CapabilitySets, capget, capset
from kernel.errors import BadInput, ContainerError, SystemCallError
from kernel.names import CAPABILITIES
from kernel.seccomp import set_mode_filter
from runtime import jsontext
from runtime.seccomp.compiler import compiled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime import spec
    from runtime.channel import Channel
    from runtime.seccomp.compiler import Filter
    from runtime.state import State

FD_NAME = "seccompFd"
_SYS_ADMIN = 1 << CAPABILITIES["CAP_SYS_ADMIN"]


def prepare(profile: spec.Seccomp, *, no_new_privileges: bool) -> Filter:
    """The filter for this machine.

    Raises BadInput for one that is too long, or that refuses what executing the payload takes: the process could not
    even say so any more.
    """
    filter = compiled(profile, os.uname().machine)
    needed = {"execve"}
    if not no_new_privileges:
        needed.add("capset")
    if filter.notifies:
        needed |= {"sendmsg", "recvmsg"}
    if filter.refused >= {"fcntl", "ioctl"}:
        needed |= {"fcntl", "ioctl"}
    missing = sorted(needed & filter.refused)
    if missing:
        raise BadInput(
            f"linux.seccomp refuses what executing the payload takes: {', '.join(missing)}",
            remedy="allow execve, fcntl or ioctl, capset without noNewPrivileges, sendmsg and recvmsg with a listener",
        )
    return filter


def keep_until_loaded(sets: CapabilitySets) -> CapabilitySets:
    """The capabilities that the child has until `load`, for those that it is to have in the end."""
    return sets.replace(permitted=sets.permitted | _SYS_ADMIN)


def load(filter: Filter, profile: spec.Seccomp, channel: Channel, kept: CapabilitySets | None) -> None:
    """In the child: put the filter in force. `kept` are the final capabilities where one more was kept."""
    described = {"operation": "SECCOMP_SET_MODE_FILTER", "flags": hex(filter.flags), "instructions": filter.length}
    events.emit("seccomp", described)
    # What would be told from here on could not be told by every filter.
    events.instruments.clear()
    if kept is not None:
        now = capget()
        capset(now.replace(effective=now.effective | _SYS_ADMIN))
    try:
        listener = set_mode_filter(filter.program, filter.flags)
    except SystemCallError as error:
        raise ContainerError(f"load the seccomp filter of {filter.length} instructions: {error.strerror}") from error
    if kept is not None:
        capset(kept)
    if filter.notifies:
        _pass_on(listener, profile, channel)


def _pass_on(listener: int, profile: spec.Seccomp, channel: Channel) -> None:
    channel.send("listener", path=profile.listener_path, metadata=profile.listener_metadata, fds=(listener,))
    message, _ = channel.receive()
    if message is None:
        # The other side says why.
        os._exit(125)


def hand_over(message: dict[str, Any], fds: list[int], record: State, pid: int) -> None:
    """In the parent: send a listener's descriptor with the container process state (config-linux.md) and close it.

    `pid` is the filtered process. Raises ContainerError when the agent cannot be reached.
    """
    state: dict[str, object] = {
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": record.status,
        "pid": record.pid,
        "bundle": record.bundle,
    }
    if record.annotations:
        state["annotations"] = record.annotations
    process = {"ociVersion": record.oci_version, "fds": [FD_NAME], "pid": pid}
    if message["metadata"]:
        process["metadata"] = message["metadata"]
    data = jsontext.dumps(process | {"state": state})
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        agent.connect(message["path"])
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))
        sent = agent.sendmsg([data], [rights])
        if sent < len(data):
            # Sending nothing would fail where the agent has read all and gone.
            agent.sendall(data[sent:])
    except OSError as error:
        problem = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ContainerError(
            f"failed to connect with seccomp agent {message['path']!r}: {problem}",
            remedy="the agent of linux.seccomp.listenerPath must listen there, SOCK_STREAM",
        ) from None
    finally:
        agent.close()
        for fd in fds:
            os.close(fd)
