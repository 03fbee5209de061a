"""Fixtures for tests that pull and push: a registry without TLS with two images, an authority, a store of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from rootfs.images.platform import Platform, here
from rootfs.images.reference import parse
from rootfs.images.store import ImageStore
from rootfs.registry.client import Client
from rootfs.registry.config import Registry as Configured
from rootfs.registry.config import RegistryConfig
from rootfs.registry.credentials import Keyring
from rootfs.registry.pull import Event, Pulled, pull
from rootfs.registry.push import Pushed, push
from rootfs.registry.timing import Timing
from tests import registry_lab as lab
from tests.conftest import IN_TEST_MACHINE
from tests.registry_lab import Authority, Layer, Layout, Registry

SLOW = 10.0 if IN_TEST_MACHINE else 1.0
QUICK = Timing(connect=5 * SLOW, stall=2 * SLOW, base=0.001, longest=0.01)
MACHINE = here().architecture
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Images `one` (three layers, one of each compression), `two` (the last two of them) and `many` (an index)."""
    layout = Layout(tmp_path_factory.mktemp("layout"))
    layers = [
        Layer({"etc/a": b"a" * 1000}),
        Layer({"etc/b": os.urandom(300_000)}, "zstd"),
        Layer({"etc/c": b"c", "etc/.wh.a": b""}, ""),
    ]
    layout.tag(layout.image(layers, MACHINE, Cmd=["/bin/c"]), "one")
    layout.tag(layout.image(layers[1:], MACHINE), "two")
    others = [
        layout.image([Layer({"etc/which": name.encode()})], name) for name in ("s390x", "386", MACHINE, "riscv64")
    ]
    layout.tag(layout.index(others), "many")
    return layout


@pytest.fixture(scope="module")
def registry(host: None, layout: Layout) -> Iterator[Registry]:
    """A registry without TLS, with the layout's images as app:one, app:two and app:many."""
    with TemporaryDirectory(prefix="rp-registry-", dir=MEMORY) as directory:
        with lab.registry(Path(directory)) as registry:
            for name in ("one", "two", "many"):
                lab.copy(f"oci:{layout.path}:{name}", f"docker://{registry.host}/app:{name}")
            yield registry


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Of certificates for 127.0.0.1."""
    lab.need("openssl")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def store() -> Iterator[ImageStore]:
    """An empty one, in memory: on a disk most of a test's time would be fsync(2)."""
    with TemporaryDirectory(prefix="rp-store-", dir=MEMORY) as directory:
        yield ImageStore(Path(directory) / "images")


def plain(*hosts: str, **fields: Any) -> RegistryConfig:
    """A configuration in which these hosts speak HTTP."""
    registries = {host: Configured(insecure="http") for host in hosts} | fields.pop("registries", {})
    return RegistryConfig(registries=registries, **fields)


def ignore(_: object) -> None:
    """For events that nobody looks at."""


async def pull_from(
    store: ImageStore,
    name: str,
    config: RegistryConfig,
    *,
    auth: Path | None = None,
    platform: Platform | None = None,
    progress: Callable[[Event], None] = ignore,
    note: Callable[[str], None] = ignore,
    timing: Timing = QUICK,
) -> Pulled:
    """Pull with little patience."""
    keyring = Keyring((auth,) if auth else ())
    async with Client(parse(name), config, keyring, timing=timing, note=note) as client:
        return await pull(store, client, platform, progress)


def fetch(store: ImageStore, name: str, config: RegistryConfig, **options: Any) -> Pulled:
    """The same, outside of an event loop."""
    return asyncio.run(pull_from(store, name, config, **options))


async def push_to(
    store: ImageStore,
    name: str,
    target: str,
    config: RegistryConfig,
    *,
    auth: Path | None = None,
    progress: Callable[[Event], None] = ignore,
) -> Pushed:
    """Push with little patience."""
    keyring = Keyring((auth,) if auth else ())
    async with Client(parse(target), config, keyring, timing=QUICK, mirrors=False) as client:
        return await push(store, name, client, progress)


def send(store: ImageStore, name: str, target: str, config: RegistryConfig, **options: Any) -> Pushed:
    """The same, outside of an event loop."""
    return asyncio.run(push_to(store, name, target, config, **options))


def content(store: ImageStore, name: str, path: str) -> bytes:
    """A file of the image, from the topmost layer that has it."""
    for lower in store.get(name).lowers:
        if (lower / path).is_file():
            return (lower / path).read_bytes()
    raise FileNotFoundError(path)
