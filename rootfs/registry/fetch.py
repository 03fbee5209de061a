"""The whole way from a name to an image in the store, for callers that have no event loop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kernel.errors import HostError
from rootfs.images.platform import Platform
from rootfs.images.reference import parse
from rootfs.images.store import ImageStore
from rootfs.registry import config, credentials
from rootfs.registry.client import Client
from rootfs.registry.pull import Event, Pulled, pull

_FULL = (errno.ENOSPC, errno.EDQUOT)


def fetch(
    images: Path,
    name: str,
    *,
    registries: Path = config.DEFAULT_PATH,
    auths: Mapping[str, Any] | None = None,
    authfile: Path | None = None,
    platform: Platform | None = None,
    insecure: bool = False,
    progress: Callable[[Event], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Pulled:
    """Pull `name`, as a user writes it, into the store at `images`.

    `registries` is the configuration's file, which has to be there unless it is the default. `auths` are credentials
    as in Docker's config.json, which come before this user's own; `authfile` replaces those. What a short name stands
    for by the configuration has the short name, too, afterwards. Raises RawpodError.
    """
    configured = config.load(registries, required=registries != config.DEFAULT_PATH)
    reference = configured.resolve(name)
    keyring = credentials.keyring(authfile, first=auths or {})
    store = ImageStore(images)

    async def work() -> Pulled:
        async with Client(reference, configured, keyring, insecure=insecure, note=note) as client:
            return await pull(store, client, platform, progress)

    try:
        pulled = asyncio.run(work())
        if parse(name) != reference:
            store.tag(reference.canonical, name)
    except OSError as error:
        # What comes from the network is a RegistryError by now.
        why = (error.strerror or str(error)).lower()
        remedy = "rawpod image prune frees what nothing needs" if error.errno in _FULL else None
        raise HostError(f"image store {str(images)!r}: {why}", remedy=remedy) from None
    return pulled
