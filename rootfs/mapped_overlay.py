"""An overlay whose layers' ids are mapped, for a container in a user namespace."""

from __future__ import annotations

import os

from kernel.mounts import MS_PRIVATE, MS_REC
from kernel.operation import Assembly, Operation
from rootfs.binds import clone
from rootfs.detached import detached_tree
from rootfs.idmap import IdMaps, forget_namespace, idmap, shared_namespace
from rootfs.overlay import OverlayRoot
from rootfs.place import attach_and_close
from rootfs.roots import MakePropagation


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
        steps: list[Operation] = [MakePropagation(MS_REC | MS_PRIVATE)]
        if self.ids:
            steps.append(_MapLayers(self.overlay.lowers, shared_namespace(assembly, self.ids)))
        assembly.fds[self.pinned] = detached_tree(self.describe(), [*steps, self.overlay], Assembly())

    def undo(self, assembly: Assembly) -> None:
        fd = assembly.fds.pop(self.pinned, -1)
        if fd >= 0:
            os.close(fd)
        forget_namespace(assembly, self.ids)


class _MapLayers(Operation):
    """Mount each of `paths` over itself, its ids mapped as the user namespace behind `namespace` does."""

    paths: tuple[str, ...]
    namespace: int

    def describe(self) -> str:
        return f"map the ids of {', '.join(self.paths)}"

    def execute(self, assembly: Assembly) -> None:
        for path in self.paths:
            tree = clone(path, recursive=False)
            idmap(tree, self.namespace, path)
            attach_and_close(tree, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
