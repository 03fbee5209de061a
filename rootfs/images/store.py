"""The image store: root file systems by name, their layers by content.

    IMAGES/layers/HEX/      the root of one layer, named by the sha256 of its uncompressed tar
    IMAGES/names/NAME       JSON: what a name stands for ("/" in the name written as "%")
    IMAGES/tmp/             layers being unpacked, each locked by who does it; what nobody holds is rubbish
    IMAGES/host/            the `host` image, see host.py
    IMAGES/lock             held while the above change

A layer gets its name, and a name its layer, by one rename(2) after everything has reached the disk. An import that dies
leaves a directory below tmp/, which the next one removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from kernel.errors import BadInput, Conflict, NotFound, RawpodError
from rootfs import host
from rootfs.files import replace_file, sync_filesystem
from rootfs.host import HostBind
from rootfs.removal import remove_tree

if TYPE_CHECKING:
    from rootfs.layers.unpack import Limits

HOST = "host"

_NAME = re.compile(r"[a-z0-9][a-z0-9._/:-]{0,127}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
    """An image. `lowers` are its layers' directories, topmost first; `size` in bytes; `created` in seconds since 1970.

    `binds` are directories of the host that are mounted over them, read-only and without devices.
    """

    name: str
    digest: str
    lowers: tuple[Path, ...]
    size: int
    created: float
    config: ImageConfig
    binds: tuple[HostBind, ...] = ()


def check_name(name: str) -> str:
    """`name` itself. Raises BadInput unless it is [a-z0-9][a-z0-9._/:-]{0,127}."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"image name {name[:200]!r} is not valid",
            remedy="1 to 128 of a-z 0-9 . _ / : -, beginning with a letter or digit",
        )
    return name


class ImageStore:
    """The images below `root`, /var/lib/rawpod/images. Several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, name: str) -> Image:
        """The image of that name. Raises NotFound."""
        check_name(name)
        if name == HOST:
            return self._host()
        try:
            with open(self._file(name), "rb") as file:
                return self._image(name, json.load(file))
        except FileNotFoundError:
            remedy = f"rawpod image import {name} FILE.tar; rawpod image ls shows what is there"
            raise NotFound(f"image {name!r} does not exist", remedy=remedy) from None
        except (ValueError, KeyError, TypeError) as error:
            raise RawpodError(f"image {name!r}: its record {str(self._file(name))!r} is damaged: {error}") from None

    def list(self) -> list[Image]:
        """All images by name, `host` among them. One whose record is damaged is left out."""
        images = [self._host()]
        with suppress(FileNotFoundError):
            for entry in sorted(os.listdir(self.root / "names")):
                if not entry.startswith("."):
                    with suppress(RawpodError):
                        images.append(self.get(entry.replace("%", "/")))
        return sorted(images)

    def import_tar(self, name: str, path: Path, limits: Limits | None = None) -> Image:
        """Make the root file system in the tar `path` (plain, gzip or zstd) the image `name`.

        An image that had the name before loses it. Raises LayerError for a bad archive, BadInput for a bad name.
        """
        # Here, so that to look an image up stays cheap.
        from rootfs.layers.unpack import Limits, unpack

        if check_name(name) == HOST:
            raise BadInput(f"image name {HOST!r} stands for the machine's own /usr", remedy="choose another name")
        archive = _open_archive(path)
        try:
            with self._temporary() as temporary:
                unpacked = unpack(archive, str(path), temporary.fd, limits or Limits())
                _check_is_root(temporary.fd, str(path))
                sync_filesystem(temporary.fd)
                record = {
                    "digest": unpacked.digest,
                    "layers": [unpacked.digest],
                    "size": unpacked.size,
                    "created": time.time(),
                    "config": ImageConfig().to_json(),
                }
                with self._locked():
                    self._keep(temporary, unpacked.digest)
                    self._write(name, record)
        finally:
            os.close(archive)
        return self.get(name)

    def remove(self, name: str, in_use: Collection[str] = ()) -> None:
        """Take the name away, and its layers if no other name has them. Raises NotFound.

        `in_use` are the digests of images, or of layers, that containers are made of: Conflict if this has one of them.
        """
        if check_name(name) == HOST:
            raise BadInput(f"image {HOST!r} is always there", remedy="it holds no more than a few small files")
        with self._locked():
            image = self.get(name)
            layers = {f"sha256:{lower.name}" for lower in image.lowers}
            if not layers.isdisjoint(in_use) or image.digest in in_use:
                raise Conflict(f"image {name!r} is in use", remedy="remove the containers that use it first")
            os.unlink(self._file(name))
            _sync_directory(self.root / "names")
        self.prune(in_use)

    def prune(self, in_use: Collection[str] = ()) -> None:
        """Remove layers without a name, unfinished imports, and old states of the host image; not those in use."""
        with self._locked() as base:
            kept = {_hex(digest) for digest in in_use} | self._named_layers()
            layers = os.open("layers", _DIRECTORY, dir_fd=base)
            try:
                for layer in os.listdir(layers):
                    if layer not in kept:
                        remove_tree(layers, layer)
            finally:
                os.close(layers)
            self._clear_temporary()
        host.prune(self.root, frozenset(in_use))

    def _host(self) -> Image:
        made = host.ensure(self.root)
        return Image(HOST, made.digest, (made.root,), made.size, made.created, ImageConfig(), made.binds)

    def _image(self, name: str, record: dict[str, object]) -> Image:
        digest, layers, config = record["digest"], record["layers"], record["config"]
        size, created = record["size"], record["created"]
        if not (isinstance(layers, list) and isinstance(config, dict) and isinstance(digest, str)):
            raise TypeError("a field has the wrong type")
        if not (isinstance(size, int) and isinstance(created, float)):
            raise TypeError("a field has the wrong type")
        lowers = tuple(self.root / "layers" / _hex(layer) for layer in reversed(layers))
        return Image(name, digest, lowers, size, created, ImageConfig.from_json(config))

    def _file(self, name: str) -> Path:
        # No name holds "%", so names and files match one to one.
        return self.root / "names" / name.replace("/", "%")

    def _write(self, name: str, record: dict[str, object]) -> None:
        names = os.open(self.root / "names", _DIRECTORY)
        try:
            replace_file(names, self._file(name).name, json.dumps(record).encode())
        finally:
            os.close(names)

    def _named_layers(self) -> set[str]:
        found: set[str] = set()
        for entry in os.listdir(self.root / "names"):
            if not entry.startswith("."):
                # A damaged record stops the removal: nobody can tell what it stands for.
                image = self.get(entry.replace("%", "/"))
                found.update(lower.name for lower in image.lowers)
        return found

    def _keep(self, temporary: _Temporary, digest: str) -> None:
        layer = self.root / "layers" / _hex(digest)
        if not layer.exists():
            os.rename(temporary.path, layer)
            _sync_directory(self.root / "layers")

    @contextmanager
    def _temporary(self) -> Iterator[_Temporary]:
        """A new directory for a layer; gone afterwards, unless it was kept by then."""
        with self._locked():
            self._clear_temporary()
            path = self.root / "tmp" / f"{os.getpid()}-{time.time_ns()}"
            os.mkdir(path, 0o755)
            fd = os.open(path, _DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            os.fchmod(fd, 0o755)
            yield _Temporary(path, fd)
        finally:
            os.close(fd)
            self._remove_temporary(path.name)

    def _clear_temporary(self) -> None:
        for name in os.listdir(self.root / "tmp"):
            fd = os.open(self.root / "tmp" / name, _DIRECTORY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # somebody is unpacking into it
            finally:
                os.close(fd)
            self._remove_temporary(name)

    def _remove_temporary(self, name: str) -> None:
        parent = os.open(self.root / "tmp", _DIRECTORY)
        try:
            remove_tree(parent, name)
        finally:
            os.close(parent)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """A descriptor of the store, complete with its directories, while nobody else changes it."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        base = os.open(self.root, _DIRECTORY)
        try:
            lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=base)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for name in ("layers", "names", "tmp"):
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=base)
                yield base
            finally:
                os.close(lock)
        finally:
            os.close(base)


class _Temporary(NamedTuple):
    path: Path
    fd: int


def _hex(digest: object) -> str:
    """The directory's name for a digest, which may come from a file."""
    if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f"{digest!r} is not a sha256 digest")
    return digest.removeprefix("sha256:")


def _open_archive(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadInput(f"cannot open {str(path)!r}: {(error.strerror or '').lower()}") from None
    if not os.path.isfile(f"/proc/self/fd/{fd}"):
        os.close(fd)
        raise BadInput(f"{str(path)!r} is not a regular file")
    return fd


def _check_is_root(root: int, path: str) -> None:
    names = set(os.listdir(root))
    if "manifest.json" in names or "oci-layout" in names:
        raise BadInput(
            f"{path!r} is an archive of an image, not of a root file system",
            remedy="export a root file system, with `podman export` or `docker export`",
        )
    if not names & {"bin", "sbin", "usr", "etc"} and len(names) == 1:
        raise BadInput(
            f"{path!r} holds a single directory, {names.pop()!r}",
            remedy="the archive's top has to be the root directory: tar -C DIRECTORY -c .",
        )


def _sync_directory(path: Path) -> None:
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
