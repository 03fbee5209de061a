"""Root file systems in a tar made into images: the tar becomes the one layer, a configuration is written around it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from kernel.errors import BadInput
from rootfs.images import model
from rootfs.images.image import Image, ImageConfig
from rootfs.images.ingest import Ingest, canonical_name
from rootfs.images.model import Descriptor
from rootfs.images.platform import here

_TYPES = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}


def import_tar(
    ingest: Ingest, name: str, source: Path | IO[bytes], *, author: str = "", comment: str = "", **changes: Any
) -> Image:
    """The tar `source` as image `name`. `changes` are fields of ImageConfig. Raises LayerError, BadInput."""
    canonical_name(name)
    ingest.forget()
    label = str(source) if isinstance(source, Path) else "standard input"
    if isinstance(source, Path):
        with open(open_archive(source), "rb", buffering=0) as file:
            layer = _add(ingest, file)
    else:
        layer = _add(ingest, source)
    with ingest.start_unpack(layer, None, label=label) as unpacking:
        unpacked = unpacking.unpacked()
        _check_is_root(unpacking.directory, label)
        unpacking.keep(unpacked)
    history = [{"created": timestamp(time.time()), "created_by": "rawpod image import", "comment": comment}]
    config = config_document(ImageConfig(**changes), [unpacked.digest], author=author, history=history)
    return ingest.commit(name, add_image(ingest, config, [layer]))


def _add(ingest: Ingest, source: IO[bytes]) -> Descriptor:
    digest, size = ingest.add_stream(source)
    return Descriptor(layer_type(ingest, digest), digest, size)


def layer_type(ingest: Ingest, digest: str) -> str:
    """The media type of a layer, by its first bytes."""
    return model.OCI_LAYER + _TYPES.get(ingest.first_bytes(digest, 2), "")


def add_image(
    ingest: Ingest, config: Mapping[str, object], layers: Sequence[Descriptor], *, media_type: str = model.OCI_MANIFEST
) -> str:
    """Store configuration and manifest of an image, OCI's or Docker's; the manifest's digest."""
    encoded = json.dumps(config, ensure_ascii=False, separators=(",", ":")).encode()
    kind = model.OCI_CONFIG if media_type == model.OCI_MANIFEST else model.DOCKER_CONFIG
    return add_manifest(ingest, media_type, Descriptor(kind, ingest.add_blob(encoded), len(encoded)), layers)[0]


def add_manifest(ingest: Ingest, media_type: str, config: Descriptor, layers: Sequence[Descriptor]) -> tuple[str, int]:
    """Store a manifest; its digest and size."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor_document(config),
        "layers": [descriptor_document(layer) for layer in layers],
    }
    data = json.dumps(manifest, separators=(",", ":")).encode()
    return ingest.add_blob(data), len(data)


def descriptor_document(descriptor: Descriptor) -> dict[str, object]:
    """As JSON has it."""
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def config_document(
    config: ImageConfig,
    diff_ids: Sequence[str],
    *,
    author: str = "",
    created: float | None = None,
    history: Sequence[Mapping[str, object]] = (),
) -> dict[str, object]:
    """An image's configuration for this machine's platform, as image-spec's config.md has it."""
    machine = here()
    document: dict[str, object] = {
        "created": timestamp(time.time() if created is None else created),
        "author": author,
        "architecture": machine.architecture,
        "variant": machine.variant,
        "os": machine.os,
        "config": runtime_document(config),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{key: value for key, value in entry.items() if value} for entry in history],
    }
    return {key: value for key, value in document.items() if value}


def runtime_document(config: ImageConfig) -> dict[str, object]:
    """The `config` object: what there is of it, under Docker's names."""
    health = config.healthcheck
    document: dict[str, object] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Env": list(config.env),
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.working_dir,
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "Healthcheck": health
        and {
            key: value
            for key, value in {
                "Test": list(health.test),
                "Interval": health.interval,
                "Timeout": health.timeout,
                "StartPeriod": health.start_period,
                "StartInterval": health.start_interval,
                "Retries": health.retries,
            }.items()
            if value
        },
    }
    return {key: value for key, value in document.items() if value}


def timestamp(seconds: float) -> str:
    """RFC 3339, in UTC, with milliseconds: time is kept as a float, and both ways have to give the same."""
    whole, fraction = divmod(round(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{fraction:03}Z"


def open_archive(path: Path) -> int:
    """A descriptor of the regular file. Raises BadInput."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadInput(f"cannot open {str(path)!r}: {(error.strerror or '').lower()}") from None
    if not os.path.isfile(f"/proc/self/fd/{fd}"):
        os.close(fd)
        raise BadInput(f"{str(path)!r} is not a regular file")
    return fd


def _check_is_root(root: int, label: str) -> None:
    found = set(os.listdir(root))
    if "manifest.json" in found or "oci-layout" in found:
        raise BadInput(
            f"{label!r} is an archive of an image, not of a root file system",
            remedy="rawpod image load",
        )
    if not found & {"bin", "sbin", "usr", "etc"} and len(found) == 1:
        raise BadInput(
            f"{label!r} holds a single directory, {found.pop()!r}",
            remedy="the archive's top has to be the root directory: tar -C DIRECTORY -c .",
        )
