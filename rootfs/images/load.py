"""Loading images: from OCI layouts and docker-archive into the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kernel.errors import BadInput
from rootfs.images import model, reference
from rootfs.images.archive import INDEX, LAYOUT, MANIFESTS, Archive, Contents, LayoutDirectory
from rootfs.images.document import Fields, ImageError, parse, parse_list
from rootfs.images.image import Image
from rootfs.images.importing import add_manifest, layer_type, open_archive
from rootfs.images.ingest import Ingest
from rootfs.images.model import Config, Descriptor, Index, Manifest
from rootfs.images.platform import Platform

# What containerd and Docker write, and what image-spec has (annotations.md): a whole name, or the tag alone.
IMAGE_NAME, REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"
_ATTESTS = "vnd.docker.reference.type"


class _Found(NamedTuple):
    """An image in the archive: its names as canonical references, and its manifest or index."""

    names: tuple[str, ...]
    descriptor: Descriptor


def load(ingest: Ingest, source: Path | int, platform: Platform, *, name: str = "") -> list[Image]:
    """Every image in `source`: a layout's directory, an archive, or the descriptor of one that is read to its end.

    `name` is given to the only image there is; one without any name is to be had by its digest. Raises ImageError,
    LayerError, and BadInput for what is no image's archive.
    """
    ingest.forget()
    if isinstance(source, Path) and source.is_dir():
        contents: Contents = LayoutDirectory(source)
    elif isinstance(source, Path):
        fd = open_archive(source)
        try:
            contents = Archive(str(source), fd, ingest)
        finally:
            os.close(fd)
    else:
        contents = Archive("standard input", source, ingest)
    found = list(_images(ingest, contents, platform))
    if not found:
        raise ImageError(contents.label, "there is no image in it")
    if name:
        if len(found) > 1:
            listed = ", ".join((*one.names, one.descriptor.digest)[0] for one in found)
            raise BadInput(f"{contents.label!r} holds {len(found)} images for one name: {listed[:500]}")
        found = [found[0]._replace(names=(reference.parse(name).canonical,))]
    # All of them are there before the first one gets its name.
    digests = [_take(ingest, contents, one, platform) for one in found]
    return [
        ingest.commit(name, digest, repo_digest=one.descriptor.digest)
        for one, digest in zip(found, digests, strict=True)
        for name in one.names or ("",)
    ]


def _images(ingest: Ingest, contents: Contents, platform: Platform) -> Iterator[_Found]:
    index, manifests = contents.document(INDEX), contents.document(MANIFESTS)
    if index is not None:
        layout = contents.document(LAYOUT)
        if layout is None:
            raise ImageError(contents.label, f"has {INDEX} and no {LAYOUT}")
        version = parse(layout, f"{contents.label}: {LAYOUT}").text("imageLayoutVersion")
        if version != "1.0.0":
            raise ImageError(
                f"{contents.label}: {LAYOUT}", f"{version[:100]!a} is not supported", field="imageLayoutVersion"
            )
        yield from _of_layout(index, f"{contents.label}: {INDEX}", platform)
    elif manifests is not None:
        for fields in parse_list(manifests, f"{contents.label}: {MANIFESTS}"):
            yield _of_docker(ingest, contents, fields)
    else:
        remedy = "rawpod image import, for the archive of a root file system"
        raise BadInput(f"{contents.label!r} is neither an OCI layout nor a docker-archive", remedy=remedy)


def _of_layout(data: bytes, document: str, platform: Platform) -> Iterator[_Found]:
    """The images of index.json. Several entries of one name are one image for several platforms."""
    index = model.parse_manifest(data, "", document)
    if not isinstance(index, Index):
        raise ImageError(document, "is a manifest where an index belongs")
    named: dict[str, list[Descriptor]] = {}
    for number, item in enumerate(index.manifests):
        if item.media_type in model.INDEXES + model.MANIFESTS and _ATTESTS not in item.annotations:
            canonical = _name_of(item, document, f"manifests[{number}].annotations")
            # Without names, entries for several platforms are one image as well.
            named.setdefault(canonical or ("" if item.platform else item.digest), []).append(item)
    for key, items in named.items():
        names = (key,) if items and not key.startswith("sha256:") and key else ()
        chosen = (
            items[0] if len(items) == 1 else model.choose(Index(index.media_type, tuple(items)), platform, document)
        )
        yield _Found(names, chosen)


def _name_of(item: Descriptor, document: str, field: str) -> str:
    """The canonical reference that annotations give an image, "" for none; a tag alone is none."""
    text = item.annotations.get(IMAGE_NAME, "")
    if not text:
        text = item.annotations.get(REF_NAME, "")
        if not set(text) & {":", "/"}:
            return ""
    return _canonical(text, document, field)


def _canonical(text: str, document: str, field: str) -> str:
    try:
        return reference.parse(text).canonical
    except BadInput as error:
        raise ImageError(document, error.message, field=field) from None


def _of_docker(ingest: Ingest, contents: Contents, fields: Fields) -> _Found:
    """An entry of docker-archive's manifest.json, around which a manifest of Docker's is written."""
    fields.known("Config", "RepoTags", "Layers")
    tags = fields.strings("RepoTags")
    names = tuple(_canonical(tag, fields.document, fields.path_of(f"RepoTags[{i}]")) for i, tag in enumerate(tags))
    config = Descriptor(model.DOCKER_CONFIG, *contents.find(fields.text("Config")))
    layers = []
    for digest, size in map(contents.find, fields.strings("Layers")):
        kind = layer_type(ingest, digest).replace(model.OCI_LAYER, model.DOCKER_LAYER).replace("+", ".")
        layers.append(Descriptor(kind, digest, size))
    if not layers:
        fields.fail("Layers", "an image without layers has no root")
    manifest = add_manifest(ingest, model.DOCKER_MANIFEST, config, layers)
    return _Found(names, Descriptor(model.DOCKER_MANIFEST, *manifest))


def _take(ingest: Ingest, contents: Contents, found: _Found, platform: Platform) -> str:
    """Bring all of one image into the store; its manifest's digest."""
    descriptor, manifest = _resolve(ingest, contents, found.descriptor, platform)
    for needed in (manifest.config, *manifest.layers):
        contents.fetch(ingest, needed)
    config = read_config(ingest, manifest)
    ingest.unpack_all(zip(manifest.layers, config.diff_ids, strict=True))
    return descriptor.digest


def _resolve(
    ingest: Ingest, contents: Contents, descriptor: Descriptor, platform: Platform
) -> tuple[Descriptor, Manifest]:
    steps = model.resolve(descriptor, platform)
    wanted = next(steps)
    while True:
        contents.fetch(ingest, wanted)
        try:
            wanted = steps.send(ingest.read_blob(wanted.digest))
        except StopIteration as end:
            chosen: tuple[Descriptor, Manifest] = end.value
            return chosen


def read_config(ingest: Ingest, manifest: Manifest) -> Config:
    """The configuration that a manifest names, with as many layers. Raises ImageError."""
    document = f"config {manifest.config.digest}"
    config = model.parse_config(ingest.read_blob(manifest.config.digest), document)
    model.check_layers(manifest, config, document)
    return config
