"""The names of images: files below IMAGES/names, one small JSON document each with all that a container's start needs.

A name is Docker's canonical reference with "/" written as "%", which no reference holds. An image without a name, since
the name went to another one, is kept under "@" and its digest for as long as a container is made of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kernel.errors import RawpodError
from rootfs.files import replace_file
from rootfs.images import reference
from rootfs.images.image import Image, ImageConfig
from rootfs.images.places import DIRECTORY, Places, hex_of

_NAME_MAX = 255


class Name(NamedTuple):
    """What a name stands for. `reference` is canonical, "" for none; `blobs` are all that the image consists of."""

    reference: str
    digest: str
    id: str
    media_type: str
    layers: tuple[str, ...]
    blobs: tuple[str, ...]
    size: int
    created: float
    platform: str
    config: ImageConfig
    repo_digest: str = ""

    @property
    def file(self) -> str:
        """The name of its file."""
        return file_name(self.reference) if self.reference else f"@{self.digest}"

    @property
    def familiar(self) -> str:
        """As Docker shows it; the digest for an image without a name."""
        return reference.parse(self.reference).familiar if self.reference else self.digest

    def image(self, places: Places) -> Image:
        """The image, as the rest of the program sees it."""
        lowers = tuple(places.layer(layer) for layer in dict.fromkeys(reversed(self.layers)))
        return Image(
            self.familiar,
            self.digest,
            lowers,
            self.size,
            self.created,
            self.config,
            id=self.id,
            media_type=self.media_type,
            layers=self.layers,
            platform=self.platform,
            repo_digest=self.repo_digest,
        )


def file_name(canonical: str) -> str:
    """The file for a canonical reference. Long ones end in a hash, for a file's name has 255 bytes at most."""
    name = canonical.replace("/", "%")
    if len(name) <= _NAME_MAX:
        return name
    from hashlib import sha256

    return f"{name[: _NAME_MAX - 66]}%%{sha256(canonical.encode()).hexdigest()}"


def read(places: Places, file: str) -> Name:
    """What is written in `file` of IMAGES/names. Raises FileNotFoundError, and RawpodError for a damaged one."""
    path = places.root / "names" / file
    with open(path, "rb") as opened:
        data = opened.read()
    try:
        name = _decode(json.loads(data))
        if name.file != file:
            raise ValueError(f"it is about {name.familiar!r}")
        return name
    except (ValueError, KeyError, TypeError, RawpodError) as error:
        shown = file.replace("%", "/")
        remedy = f"rawpod image rm {shown}, and bring it in again"
        raise RawpodError(f"image {shown!r}: its record {str(path)!r} is damaged: {error}", remedy=remedy) from None


def write(places: Places, name: Name) -> None:
    """Put it in place of what was there, if anything was, by one rename(2). The store is locked."""
    content = name._asdict() | {"config": name.config.to_json()}
    directory = os.open(places.root / "names", DIRECTORY)
    try:
        replace_file(directory, name.file, json.dumps(content).encode(), mode=0o600)
    finally:
        os.close(directory)


def files(root: Path) -> list[str]:
    """The files of all names, in order."""
    try:
        return sorted(file for file in os.listdir(root / "names") if not file.startswith("."))
    except FileNotFoundError:
        return []


def read_all(places: Places) -> Iterator[Name]:
    """All names. Raises RawpodError at a damaged one: nobody can tell what it stands for."""
    for file in files(places.root):
        try:
            yield read(places, file)
        except FileNotFoundError:
            continue  # removed meanwhile


def _decode(content: Any) -> Name:
    if not isinstance(content, dict):
        raise TypeError("it is not an object")
    name = Name(
        **content
        | {
            "layers": tuple(content["layers"]),
            "blobs": tuple(content["blobs"]),
            "config": ImageConfig.from_json(content["config"]),
        }
    )
    for digest in (name.digest, name.id, *name.layers, *name.blobs):
        hex_of(digest)
    if not (isinstance(name.size, int) and isinstance(name.created, float) and name.layers):
        raise TypeError("a field has the wrong type")
    if not all(isinstance(text, str) for text in (name.reference, name.media_type, name.platform, name.repo_digest)):
        raise TypeError("a field has the wrong type")
    return name
