"""What a container of a pod wrote, made an image; and its whole root, written as a tar."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kernel.errors import NotFound, NotSupported
from kernel.record import Record
from rootfs.idmap import IdMaps
from rootfs.images import model
from rootfs.images.image import Image, ImageConfig
from rootfs.images.importing import add_image, runtime_document, timestamp
from rootfs.images.ingest import Ingest
from rootfs.images.model import Descriptor
from rootfs.images.names import Name
from rootfs.images.places import DIRECTORY
from rootfs.images.store import HOST, ImageStore
from rootfs.layers.pack import pack, pack_union
from runtime import spec
from runtime.pod import directory
from runtime.pod.copying import runs, standing_still
from runtime.settings import Settings


class Layers(Record):
    """What a container is made of: the directory that it writes to, its image's below that, topmost first.

    `stack` are the layers' digests as the image store has them, `ids` the container's own users.
    """

    upper: str
    lowers: tuple[str, ...]
    stack: tuple[str, ...]
    ids: IdMaps | None
    args: tuple[str, ...] = ()
    warning: str = ""


@contextmanager
def container(settings: Settings, name: str, *, pause: bool) -> Iterator[Layers]:
    """The layers of a container, POD[/CONTAINER], which stands still meanwhile if it runs. Raises NotFound."""
    uid, named = directory.find(settings, name)
    status = directory.read_status(settings.pod(uid))
    if status is None:
        raise NotFound(f"pod {uid!r} has no readable status", remedy=f"remove it with `rawpod rm -f {uid}`")
    bundle = settings.pod(uid) / "containers" / directory.choose_container(status, named)
    with ExitStack() as stack:
        layers = _layers(bundle)
        if runs(bundle):
            warning = stack.enter_context(standing_still(bundle, status, pause))
            layers = layers.replace(warning=warning)
        yield layers


def _layers(bundle: Path) -> Layers:
    try:
        config = spec.load((bundle / "config.json").read_bytes())
    except FileNotFoundError:
        raise NotFound(f"container {bundle.name!r} was never started: it has no files") from None
    options = dict(option.partition("=")[::2] for option in config.mounts[0].options)
    lowers = tuple(options["lowerdir"].split(":"))
    if not os.path.isdir(options["upperdir"]):
        raise NotFound(f"container {bundle.name!r}: its files are gone: the layer that it wrote to was removed")
    if any(re.search(r"/host/sha256-[0-9a-f]{64}$", lower) for lower in lowers):
        raise NotSupported("the image 'host' is the machine's own /usr and cannot be packed into an archive")
    stack = tuple(f"sha256:{os.path.basename(lower)}" for lower in lowers)
    args = tuple(config.process.args) if config.process else ()
    return Layers(options["upperdir"], lowers, stack, _ids(config), args)


def _ids(config: spec.Config) -> IdMaps | None:
    """The users of a container that has its own: the upper layer's files belong to the host's ids."""
    if config.linux is None or not config.linux.uid_mappings:
        return None
    uids, gids = (
        tuple((row.container_id, row.host_id, row.size) for row in rows)
        for rows in (config.linux.uid_mappings, config.linux.gid_mappings)
    )
    return IdMaps(uids, gids)


def export_image(image: Image, output: int) -> None:
    """The root of an image as a tar."""
    if image.name == HOST:
        raise NotSupported("the image 'host' is the machine's own /usr and cannot be packed into an archive")
    with _opened(tuple(map(str, image.lowers))) as roots:
        pack_union(roots, output, compression=None)


def export_container(layers: Layers, output: int) -> None:
    """The root of a container as a tar."""
    with _opened((layers.upper, *layers.lowers)) as roots:
        pack_union(roots, output, compression=None, ids=layers.ids)


@contextmanager
def _opened(paths: tuple[str, ...]) -> Iterator[list[int]]:
    with ExitStack() as stack:
        fds = []
        for path in paths:
            fds.append(os.open(path, DIRECTORY))
            stack.callback(os.close, fds[-1])
        yield fds


def commit(
    store: ImageStore,
    layers: Layers,
    name: str,
    change: Callable[[ImageConfig], ImageConfig],
    *,
    author: str = "",
    message: str = "",
) -> Image:
    """The container's image with what it wrote as one more layer, as image `name`, or without one.

    `change` is done to the configuration. Raises NotFound if the image is gone.
    """
    with store.ingest() as ingest:
        ingest.forget()
        base = _base(store, ingest, layers.stack)
        config = change(base.config)
        layer, diff_id = _pack(ingest, layers, docker=base.media_type == model.DOCKER_MANIFEST)
        ingest.unpack(layer, diff_id)
        manifest, _ = ingest.read_image(base.digest)
        document = _document(json.loads(ingest.read_blob(base.id)), base.config, config, diff_id)
        entry = {
            "created": document["created"],
            "created_by": " ".join(layers.args),
            "author": author,
            "comment": message,
        }
        document["history"] = [*(document.get("history") or []), {key: value for key, value in entry.items() if value}]
        if author:
            document["author"] = author
        digest = add_image(ingest, document, [*manifest.layers, layer], media_type=manifest.media_type)
        return ingest.commit(name, digest)


def _base(store: ImageStore, ingest: Ingest, stack: tuple[str, ...]) -> Name:
    """The image that a container is made of, kept from being removed meanwhile."""
    for layer in stack:
        ingest.has_layer(layer)
    for image in store.list():
        if image.stack == stack and image.id:
            found = store.find(image.digest)
            if all(map(ingest.has_blob, found.blobs)):
                return found
    raise NotFound("the image that the container is made of is not here any more", remedy="rawpod image export, import")


def _pack(ingest: Ingest, layers: Layers, *, docker: bool) -> tuple[Descriptor, str]:
    with _opened((layers.upper,)) as (upper,), ingest.stream() as stream:
        packed = pack(upper, stream.fd, upper=True, compression="gzip", ids=layers.ids)
        stream.keep(packed.digest)
    kind = f"{model.DOCKER_LAYER}.gzip" if docker else f"{model.OCI_LAYER}+gzip"
    return Descriptor(kind, packed.digest, packed.size), packed.diff_id


def _document(document: dict[str, Any], before: ImageConfig, after: ImageConfig, diff_id: str) -> dict[str, Any]:
    """The base's configuration with one layer more; what of it rawpod does not know stays as it is."""
    document = dict(document, created=timestamp(time.time()))
    document["rootfs"] = {"type": "layers", "diff_ids": [*document["rootfs"]["diff_ids"], diff_id]}
    if after != before:
        old, new = runtime_document(before), runtime_document(after)
        kept = {key: value for key, value in (document.get("config") or {}).items() if key not in old}
        document["config"] = kept | new
    return document
