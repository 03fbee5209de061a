"""The root of a pod's container from outside, as a descriptor: the mounts it has, or had when it ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kernel.errors import NotFound
from kernel.operation import Assembly, run
from rootfs.detached import detached_tree
from rootfs.mapped_overlay import PrepareOverlay
from rootfs.mounts import Bind, MakePropagation, OverlayRoot, PinSource
from rootfs.roots import TakeRoot
from runtime import plan_mounts, spec, state


@contextmanager
def running_root(bundle: Path) -> Iterator[int]:
    """The root of a container that runs, by way of its first process. Raises NotFound if it does not.

    What is opened in it is what its processes would find there, volumes included. No process enters the container.
    """
    record = state.load(bundle)
    with ExitStack() as opened:
        process = f"/proc/{record.pid}"
        try:
            # With its last process the namespace would go, and leave the root without its volumes.
            namespace = os.open(f"{process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, namespace)
            root = os.open(f"{process}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, root)
        except FileNotFoundError:
            raise NotFound(f"container {record.id!r} is not running") from None
        os.close(state.open_process(record))  # the pid was still the container's when these were opened
        yield root


@contextmanager
def ended_root(bundle: Path) -> Iterator[int]:
    """The root of a container that has ended: its layers and volumes, mounted anew where nobody sees them.

    Volumes that ended with it, as those in memory, are not there. Raises NotFound where its upper layer is gone.
    """
    config = _readable(spec.load((bundle / "config.json").read_bytes()))
    linux = config.linux or spec.Linux()
    before, inside = plan_mounts.filesystem(config, linux, str(bundle), cgroup="", hierarchy="")
    # What the config does not ask for is left out, a /dev; and an empty volume is not filled again.
    before = [step for step in before if isinstance(step, (PrepareOverlay, PinSource))]
    inside = [
        step.replace(populate=False) if isinstance(step, Bind) else step
        for step in inside
        if isinstance(step, (MakePropagation, OverlayRoot, TakeRoot, Bind))
    ]
    assembly = Assembly()
    undo = run(before, assembly)
    try:
        root = detached_tree(f"mount the layers of {bundle.name}", inside, assembly)
        try:
            yield root
        finally:
            os.close(root)
    finally:
        undo.undo()


def _readable(config: spec.Config) -> spec.Config:
    """The config with nothing left to mount but the overlay and what is bound onto it and is still there."""
    overlay, *others = config.mounts
    upper = next(option.partition("=")[2] for option in overlay.options if option.startswith("upperdir="))
    if not os.path.isdir(upper):
        raise NotFound("its files are gone: the layer that it wrote to was removed")
    # Its /dev is not there: what was mounted below that would leave its place in the upper layer.
    kept = [mount for mount in others if mount.type == "bind" and not mount.destination.startswith("/dev/")]
    config.mounts = [overlay, *(mount for mount in kept if os.path.exists(mount.source))]
    if config.process is not None:
        config.process.terminal = False
    return config
