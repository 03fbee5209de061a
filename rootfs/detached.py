"""Mounts that are made out of everybody's sight, in a process that is there for this alone, and handed over."""

from __future__ import annotations

import _socket
import os
import struct

from kernel import events
from kernel.errors import ContainerError
from kernel.mounts import AT_EMPTY_PATH, AT_RECURSIVE, OPEN_TREE_CLONE, open_tree
from kernel.operation import Assembly
from kernel.pidfd import wait_pidfd
from kernel.process import CLONE_NEWNS, clone3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel.operation import Operation

_MAX_PACKET = 8192


def detached_tree(what: str, operations: Sequence[Operation], assembly: Assembly) -> int:
    """The root that `operations` leave in the assembly, with all that is mounted in it, as a detached mount.

    They are executed in a mount namespace of their own, which ends at once. `what` is for errors.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    child = clone3(CLONE_NEWNS)
    if child.pid == 0:
        _assemble(theirs, operations, assembly)
    theirs.close()
    text, ancillary, _, _ = ours.recvmsg(_MAX_PACKET, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    ours.close()
    wait_pidfd(child.pidfd)
    os.close(child.pidfd)
    if not ancillary:
        raise ContainerError(f"{what}: {text.decode() or 'the process that prepares it was killed'}")
    tree: int = struct.unpack("i", ancillary[0][2])[0]
    return tree


def _assemble(parent: _socket.socket, operations: Sequence[Operation], assembly: Assembly) -> None:
    """In the process of its own, which ends here."""
    try:
        events.instruments.clear()  # they are the parent's
        for operation in operations:
            operation.execute(assembly)
        tree = open_tree(assembly.root, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE)
        parent.sendmsg([b"!"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", tree))])
    except BaseException as error:
        parent.send(str(error).encode()[:_MAX_PACKET])
    finally:
        os._exit(0)
