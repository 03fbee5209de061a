"""The whole way from an image in the store to a registry, for callers that have no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from kernel.errors import BadInput, NotSupported
from rootfs.images.store import HOST, ImageStore
from rootfs.registry import config, credentials
from rootfs.registry.client import Client
from rootfs.registry.pull import Event
from rootfs.registry.push import Pushed, push


def send(
    images: Path,
    name: str,
    target: str | None = None,
    *,
    registries: Path = config.DEFAULT_PATH,
    authfile: Path | None = None,
    insecure: bool = False,
    progress: Callable[[Event], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Pushed:
    """Push the image `name` of the store at `images` to `target`, or to where its own name says.

    The other arguments are those of fetch(). Raises RawpodError.
    """
    if name == HOST:
        raise NotSupported("image 'host' is the machine's own /usr and cannot be pushed")
    configured = config.load(registries, required=registries != config.DEFAULT_PATH)
    store = ImageStore(images)
    found = store.find(name)
    # The name may be an image's id.
    goal = configured.resolve(target or found.reference or name)
    if goal.digest:
        raise BadInput(f"cannot push to {goal.familiar!r}, which names a digest", remedy="push IMAGE NAME:TAG")
    if found.repo_digest:
        note(f"{found.familiar} came for several platforms; the image for {found.platform} is pushed")
    keyring = credentials.keyring(authfile)

    async def work() -> Pushed:
        async with Client(goal, configured, keyring, insecure=insecure, mirrors=False, note=note) as client:
            return await push(store, name, client, progress)

    return asyncio.run(work())
