"""An overlay whose layers' ids are mapped, for a container in a user namespace."""

from __future__ import annotations

import _socket
import os
import struct

from kernel import events
from kernel.errors import ContainerError
from kernel.mounts import (
    AT_EMPTY_PATH,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    mount,
    open_tree,
)
from kernel.operation import Assembly, Operation
from kernel.pidfd import wait_pidfd
from kernel.process import CLONE_NEWNS, clone3
from rootfs.binds import clone
from rootfs.idmap import IdMaps, forget_namespace, idmap, shared_namespace
from rootfs.overlay import OverlayRoot
from rootfs.place import attach_and_close

_MAX_PACKET = 8192


class PrepareOverlay(Operation):
    """For the creating process: the overlay as a detached mount, left in the assembly's descriptors as `pinned`.

    With `ids` its lower layers are id-mapped mounts, so that files of the image belong to the container's users and
    nothing of it is copied or changed; the upper layer is used as it is and holds the host's ids. An overlay itself
    cannot be id-mapped, and before Linux 6.15 its layers have to be attached somewhere. They are in the mount
    namespace of a process that is there for this alone, each one over the directory that it maps.
    """

    overlay: OverlayRoot
    pinned: str
    ids: IdMaps | None = None

    def describe(self) -> str:
        return f"prepare {self.overlay.describe()}" + (f" with ids {self.ids.shown()}" if self.ids else "")

    def execute(self, assembly: Assembly) -> None:
        namespace = shared_namespace(assembly, self.ids) if self.ids else -1
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        child = clone3(CLONE_NEWNS)
        if child.pid == 0:
            self._prepare(theirs, namespace)
        theirs.close()
        text, ancillary, _, _ = ours.recvmsg(_MAX_PACKET, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        ours.close()
        wait_pidfd(child.pidfd)
        os.close(child.pidfd)
        if not ancillary:
            raise ContainerError(f"{self.describe()}: {text.decode() or 'the process that prepares it was killed'}")
        assembly.fds[self.pinned] = struct.unpack("i", ancillary[0][2])[0]

    def undo(self, assembly: Assembly) -> None:
        fd = assembly.fds.pop(self.pinned, -1)
        if fd >= 0:
            os.close(fd)
        forget_namespace(assembly, self.ids)

    def _prepare(self, parent: _socket.socket, namespace: int) -> None:
        """In a process of its own, which ends here."""
        try:
            events.instruments.clear()  # they are the parent's
            mount(None, "/", None, MS_REC | MS_PRIVATE)
            if self.ids:
                self._map_lowers(namespace)
            assembly = Assembly()
            self.overlay.execute(assembly)
            tree = open_tree(assembly.root, "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
            parent.sendmsg([b"!"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", tree))])
        except BaseException as error:
            parent.send(str(error).encode()[:_MAX_PACKET])
        finally:
            os._exit(0)

    def _map_lowers(self, namespace: int) -> None:
        for path in self.overlay.lowers:
            tree = clone(path, recursive=False)
            idmap(tree, namespace, path)
            attach_and_close(tree, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
