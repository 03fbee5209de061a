"""What the rest of the program sees of an image. Light to import: every container's start looks one up."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rootfs.host import HostBind

HOST = "host"

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Healthcheck(NamedTuple):
    """Docker's HEALTHCHECK. `test` begins with NONE, CMD or CMD-SHELL; times in nanoseconds, 0 where not given."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ImageConfig(NamedTuple):
    """What a container of the image runs by default: image-spec's config.md, and what Docker adds to it.

    `labels` are the image's own words: data to show, never keys that rawpod obeys.
    """

    env: tuple[str, ...] = (PATH,)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ("/bin/sh",)
    working_dir: str = "/"
    user: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    healthcheck: Healthcheck | None = None


class Image(NamedTuple):
    """An image. `lowers` are its layers' directories, topmost first; `size` in bytes; `created` in seconds since 1970.

    `digest` is the manifest's. `binds` are directories of the host that are mounted over the layers, read-only and
    without devices. `layers` are the diff_ids, lowest first, each as often as the image names it.
    """

    name: str
    digest: str
    lowers: tuple[Path, ...]
    size: int
    created: float
    config: ImageConfig
    binds: tuple[HostBind, ...] = ()
    media_type: str = ""
    layers: tuple[str, ...] = ()
