"""An image's documents: OCI image-spec 1.1, and Docker's distribution manifests of schema 2.

Both are told apart by media type alone. A document that could be read as a manifest and as an index is refused
(CVE-2021-41190), and so is what we would have to leave out: an image is unpacked whole or not at all.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Generator
from typing import NamedTuple

from rootfs.images.document import DOCUMENT_MAX, Fields, ImageError, check_digest, parse
from rootfs.images.image import Healthcheck, ImageConfig
from rootfs.images.platform import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
LAYERS = {
    OCI_LAYER: "",
    f"{OCI_LAYER}+gzip": "gzip",
    f"{OCI_LAYER}+zstd": "zstd",
    DOCKER_LAYER: "",
    f"{DOCKER_LAYER}.gzip": "gzip",
    f"{DOCKER_LAYER}.zstd": "zstd",
}

INDEX_DEPTH_MAX = 4  # of indexes within indexes
LAYERS_MAX = 500  # OVL_MAX_STACK: what an overlay can be stacked of (fs/overlayfs/params.h)

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_FOREIGN = ("application/vnd.oci.image.layer.nondistributable.", "application/vnd.docker.image.rootfs.foreign.")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(\.\d+)?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)
_PORT = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?", re.ASCII)


class Descriptor(NamedTuple):
    """A reference to a blob (descriptor.md). `size` in bytes. `urls` are where foreign layers would be had."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = {}


class Index(NamedTuple):
    """A list of manifests for several platforms (image-index.md), or Docker's manifest list."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}


class Manifest(NamedTuple):
    """One image: its configuration and its layers, the lowest first (manifest.md)."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}


class History(NamedTuple):
    """How one layer came about; `empty` if there is none for it. `created` in seconds since 1970, 0 if unknown."""

    created: float = 0.0
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty: bool = False


class Config(NamedTuple):
    """An image's configuration (config.md). `diff_ids` are the digests of the uncompressed layers, the lowest first."""

    platform: Platform
    diff_ids: tuple[str, ...]
    created: float
    author: str
    config: ImageConfig
    history: tuple[History, ...]


def parse_manifest(data: bytes, media_type: str = "", document: str = "manifest") -> Index | Manifest:
    """The index or manifest that `data` is.

    `media_type` is what the descriptor or the registry called it, parameters and all; if it is empty the document's own
    word counts. `document` names it in errors. Raises ImageError.
    """
    fields = parse(data, document)
    fields.known("schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "annotations")
    kind = _media_type(fields, media_type.partition(";")[0].strip().lower())
    if fields.has("fsLayers"):
        fields.fail("fsLayers", "belongs to Docker's schema 1, which is not supported")
    if fields.integer("schemaVersion") != 2:
        fields.fail("schemaVersion", f"{fields.value['schemaVersion']} is not supported", "2")
    if kind in INDEXES:
        _refuse_mixed(fields, kind, "config", "layers")
        manifests = tuple(_descriptor(item) for item in fields.objects("manifests"))
        return Index(kind, manifests, fields.mapping("annotations"))
    _refuse_mixed(fields, kind, "manifests")
    return _manifest(fields, kind)


def _media_type(fields: Fields, told: str) -> str:
    own = fields.text("mediaType", "")
    if told and own and own != told:
        fields.fail("mediaType", f"{own[:100]!a} where {told[:100]!a} was announced")
    kind = told or own
    if kind.startswith(_SCHEMA_1):
        raise ImageError(
            fields.document, f"{kind!a} is Docker's schema 1, which is not supported", remedy="push the image anew"
        )
    if not kind and fields.has("manifests") != fields.has("layers"):
        return OCI_INDEX if fields.has("manifests") else OCI_MANIFEST
    if not kind:
        fields.fail("mediaType", "is missing, and the rest does not tell a manifest from an index")
    if kind not in INDEXES + MANIFESTS:
        raise ImageError(
            fields.document, f"media type {kind[:100]!a} is no image's", remedy=", ".join(INDEXES + MANIFESTS)
        )
    return kind


def _refuse_mixed(fields: Fields, kind: str, *foreign: str) -> None:
    for key in foreign:
        if fields.has(key):
            what = "an index" if kind in INDEXES else "a manifest"
            fields.fail(key, f"does not belong into {what}: it could be read as two different images")


def _manifest(fields: Fields, kind: str) -> Manifest:
    if not fields.has("config"):
        fields.fail("config", "is missing")
    config = _descriptor(fields.object("config"))
    if config.media_type not in CONFIGS:
        fields.fail(
            "config.mediaType", f"{config.media_type[:100]!a} is not an image's configuration", ", ".join(CONFIGS)
        )
    layers = tuple(_descriptor(item) for item in fields.objects("layers"))
    if not layers:
        fields.fail("layers", "an image without layers has no root")
    if len(layers) > LAYERS_MAX:
        fields.fail("layers", f"{len(layers)} layers are over the limit of {LAYERS_MAX}")
    for number, layer in enumerate(layers):
        where = f"layers[{number}].mediaType"
        if layer.media_type.startswith(_FOREIGN):
            reason = f"{layer.media_type[:100]!a}: layer {layer.digest} is not distributable, it is to be had from "
            fields.fail(where, reason + (repr(layer.urls[0][:200]) if layer.urls else "its maker") + " only")
        if layer.media_type not in LAYERS:
            fields.fail(
                where, f"{layer.media_type[:100]!a} of layer {layer.digest} is not supported", ", ".join(LAYERS)
            )
    return Manifest(kind, config, layers, fields.mapping("annotations"))


def _descriptor(fields: Fields) -> Descriptor:
    fields.known("mediaType", "digest", "size", "platform", "urls", "annotations")
    platform = None
    if fields.has("platform"):
        found = fields.object("platform")
        found.known("os", "architecture", "variant")
        platform = Platform(found.text("os", ""), found.text("architecture", ""), found.text("variant", "")).normal()
    return Descriptor(
        fields.text("mediaType"),
        fields.digest("digest"),
        fields.integer("size"),
        platform,
        fields.strings("urls"),
        fields.mapping("annotations"),
    )


def choose(index: Index, platform: Platform, document: str = "index") -> Descriptor:
    """The manifest, or index within, for a machine of `platform`: the first of the best platform that is there.

    One that names no platform is taken where nothing else fits and there is no second. Raises ImageError.
    """
    known = [item for item in index.manifests if item.media_type in INDEXES + MANIFESTS]
    for wanted in platform.runs():
        for item in known:
            if item.platform == wanted:
                return item
    unnamed = {item.digest: item for item in known if item.platform is None}
    if len(unnamed) == 1:
        return next(iter(unnamed.values()))
    if unnamed:
        raise ImageError(
            document, f"ambiguous: {len(unnamed)} manifests that name no platform, and none for {platform}"
        )
    there = sorted({str(item.platform) for item in known})
    raise ImageError(document, f"no image for {platform}", remedy=f"there is {', '.join(there)[:300] or 'none at all'}")


def resolve(root: Descriptor, platform: Platform) -> Generator[Descriptor, bytes, tuple[Descriptor, Manifest]]:
    """Go from `root` through indexes to one manifest: yields what to read, wants its bytes sent, returns what it is.

    Sizes are checked here, digests by who reads. Raises ImageError; also for indexes nested over INDEX_DEPTH_MAX deep
    or within themselves.
    """
    descriptor, seen = root, set[str]()
    while True:
        document = f"manifest {descriptor.digest}"
        if descriptor.size > DOCUMENT_MAX:
            raise ImageError(document, f"{descriptor.size} bytes are over the limit of {DOCUMENT_MAX}")
        if descriptor.digest in seen:
            raise ImageError(document, "the index contains itself")
        if len(seen) > INDEX_DEPTH_MAX:
            raise ImageError(document, f"indexes are nested more than {INDEX_DEPTH_MAX} deep")
        seen.add(descriptor.digest)
        data = yield descriptor
        found = parse_manifest(data, descriptor.media_type, document)
        if isinstance(found, Manifest):
            return descriptor, found
        descriptor = choose(found, platform, document)


def parse_config(data: bytes, document: str = "config") -> Config:
    """An image's configuration, OCI's or Docker's. Raises ImageError with the field's name."""
    fields = parse(data, document)
    fields.known("architecture", "os", "variant", "created", "author", "config", "rootfs", "history")
    rootfs = fields.object("rootfs")
    rootfs.known("type", "diff_ids")
    if rootfs.text("type") != "layers":
        rootfs.fail("type", f"{rootfs.value['type'][:100]!a} is not supported", "layers")
    identifiers = rootfs.strings("diff_ids")
    for number, digest in enumerate(identifiers):
        check_digest(digest, document, f"rootfs.diff_ids[{number}]")
    platform = Platform(fields.text("os", ""), fields.text("architecture", ""), fields.text("variant", ""))
    return Config(
        platform.normal() if platform.architecture else platform,
        identifiers,
        _time(fields),
        fields.text("author", ""),
        _image_config(fields.object("config")),
        tuple(_history(item) for item in fields.objects("history")),
    )


def check_layers(manifest: Manifest, config: Config, document: str) -> None:
    """Raises ImageError unless the configuration knows as many layers as the manifest has."""
    if len(manifest.layers) != len(config.diff_ids):
        reason = f"{len(config.diff_ids)} of them, and the manifest has {len(manifest.layers)} layers"
        raise ImageError(document, reason, field="rootfs.diff_ids")


def _image_config(fields: Fields) -> ImageConfig:
    fields.known("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal")
    fields.known("Healthcheck")
    env = fields.strings("Env")
    for number, variable in enumerate(env):
        if variable.find("=") < 1:
            fields.fail(f"Env[{number}]", f"{variable[:100]!a} is not NAME=VALUE")
    ports = fields.names("ExposedPorts")
    for port in ports:
        if not _PORT.fullmatch(port) or any(int(number) > 65535 for number in re.findall(r"\d+", port)):
            fields.fail("ExposedPorts", f"{port[:100]!a} is not a port", "80, 80/tcp, 8000-8010/udp")
    return ImageConfig(
        env,
        fields.strings("Entrypoint"),
        fields.strings("Cmd"),
        fields.text("WorkingDir", "") or "/",
        fields.text("User", ""),
        fields.text("StopSignal", ""),
        fields.names("Volumes"),
        ports,
        fields.mapping("Labels"),
        _healthcheck(fields.object("Healthcheck")) if fields.has("Healthcheck") else None,
    )


def _healthcheck(fields: Fields) -> Healthcheck:
    fields.known("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
    test = fields.strings("Test")
    if test and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        fields.fail("Test[0]", f"{test[0][:100]!a} is not known", "NONE, CMD or CMD-SHELL")
    times = [fields.integer(key, 0) for key in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")]
    return Healthcheck(test, *times)


def _history(fields: Fields) -> History:
    fields.known("created", "created_by", "author", "comment", "empty_layer")
    return History(
        _time(fields),
        fields.text("created_by", ""),
        fields.text("author", ""),
        fields.text("comment", ""),
        fields.flag("empty_layer"),
    )


def _time(fields: Fields) -> float:
    """`created` (RFC 3339) in seconds since 1970, 0 if absent. Builders write year 1 for "unknown", Go's zero time."""
    text = fields.text("created", "")
    if not text:
        return 0.0
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError("not of that form")
        seconds = float(calendar.timegm(tuple(map(int, match.groups()[:6]))))
    except ValueError:
        fields.fail("created", f"{text[:100]!a} is not a time", "as RFC 3339 writes it, 2026-01-31T12:00:00Z")
    if match[8]:
        seconds += (-1 if match[8] == "+" else 1) * (int(match[9]) * 3600 + int(match[10]) * 60)
    return max(0.0, seconds + float(match[7] or 0))
