"""What the rest of the program sees of an image. Light to import: every container's start looks one up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from rootfs.host import HostBind

HOST = "host"

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

InUse = Callable[[], Collection[tuple[str, ...]]]
"""What containers are made of just now: for each the digests of its layers, topmost first."""


class Healthcheck(NamedTuple):
    """How to tell whether a container of the image does well; Docker's addition to image-spec.

    `test` is (), ("NONE",), ("CMD", program, argument…) or ("CMD-SHELL", text). Times in nanoseconds; 0 is the default.
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ImageConfig(NamedTuple):
    """What a container of the image runs by default: the parts of image-spec's config that rawpod uses.

    `volumes` are directories and `exposed_ports` PORT[/PROTOCOL] as the image has them, `labels` are nothing but data.
    """

    env: tuple[str, ...] = (_PATH,)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ("/bin/sh",)
    working_dir: str = "/"
    user: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = MappingProxyType({})
    healthcheck: Healthcheck | None = None

    def to_json(self) -> dict[str, object]:
        """As it is kept in a name's record."""
        parts = self._asdict() | {"labels": dict(self.labels)}
        if self.healthcheck is not None:
            parts["healthcheck"] = self.healthcheck._asdict()
        return parts

    @classmethod
    def from_json(cls, parts: dict[str, Any]) -> ImageConfig:
        """Raises TypeError for parts that there are not."""
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in parts.items()
        }
        config = cls(**given)
        if config.healthcheck is not None:
            fields: dict[str, Any] = parts["healthcheck"]
            config = config._replace(healthcheck=Healthcheck(**fields | {"test": tuple(fields.get("test", ()))}))
        return config


class Image(NamedTuple):
    """An image as it is in the store.

    `name` is Docker's familiar form, or the digest if it has no name (any more). `digest` is the manifest's, `id` the
    configuration's. `lowers` are its layers' directories, topmost first; `layers` the diff_ids, lowest first, each as
    often as the image lists it. `size` is what the layers take unpacked, in bytes; `created` in seconds since 1970.
    `binds` are directories of the host that are mounted over the layers, read-only and without devices.
    `repo_digest` is what its registry has it under, if that is not `digest`: that of an index.
    """

    name: str
    digest: str
    lowers: tuple[Path, ...]
    size: int
    created: float
    config: ImageConfig
    binds: tuple[HostBind, ...] = ()
    id: str = ""
    media_type: str = ""
    layers: tuple[str, ...] = ()
    platform: str = ""
    repo_digest: str = ""

    @property
    def stack(self) -> tuple[str, ...]:
        """The digests of the layers that a container of it is made of, topmost first; as in `InUse`."""
        return tuple(dict.fromkeys(reversed(self.layers)))
