"""Networks and registries that fail: what is pulled is right, or there is an error and nothing was committed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernel import mounts
from kernel.errors import HostError, RawpodError
from rootfs.images.document import ImageError
from rootfs.images.store import ImageStore
from rootfs.registry.config import Registry as Configured
from rootfs.registry.errors import RegistryError
from rootfs.registry.fetch import fetch
from rootfs.registry.pull import Pulled
from tests.conftest import IN_TEST_MACHINE
from tests.fault_proxy import Answer, Fault, FaultProxy
from tests.registry_fixtures import QUICK, SLOW, content, layout, plain, pull_from, registry, store
from tests.registry_lab import Layout, Registry

pytestmark = pytest.mark.userland

__all__ = ["layout", "registry", "store"]

BLOB = "/blobs/"
LARGE = 300_000  # bytes of the only layer that is more than a few hundred


def attempt(
    store: ImageStore, registry: Registry, *faults: Fault, name: str = "app:two", **options: Any
) -> tuple[Pulled, FaultProxy]:
    """Pull through a proxy with these faults."""

    async def work() -> tuple[Pulled, FaultProxy]:
        async with FaultProxy(registry.host, *faults) as proxy:
            return await pull_from(store, f"{proxy.host}/{name}", plain(proxy.host), **options), proxy

    return asyncio.run(work())


def large(layout: Layout) -> str:
    """The digest of the large layer."""
    found = max((path for path in (layout.path / "blobs/sha256").iterdir()), key=lambda path: path.stat().st_size)
    return f"sha256:{found.name}"


def is_whole(store: ImageStore, pulled: Pulled) -> bool:
    name = pulled.image.name
    return content(store, name, "etc/c") == b"c" and len(content(store, name, "etc/b")) == LARGE


def headers(**changes: str) -> Callable[[Answer], Answer]:
    return lambda answer: answer._replace(headers=answer.headers | changes)


def status(number: int, **more: str) -> Callable[[Answer], Answer]:
    return lambda answer: Answer(number, more, b"")


def flipped(at: int) -> Callable[[Answer], Answer]:
    """One bit of the body is another."""

    def change(answer: Answer) -> Answer:
        body = bytearray(answer.body)
        body[at % len(body)] ^= 1
        return answer._replace(body=bytes(body))

    return change


def nothing_was_committed(store: ImageStore) -> None:
    """No name, no layer, and every blob is what its name says."""
    assert [image.name for image in store.list()] == ["host"]
    for path in (store.root / "blobs/sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_cut_costs_what_was_not_there_yet(store: ImageStore, registry: Registry, layout: Layout, reset: bool) -> None:
    digest = large(layout)
    cuts = [Fault(digest, cut=100_000, reset=reset), Fault(digest, cut=50_000, reset=reset)]
    pulled, proxy = attempt(store, registry, *cuts)
    assert is_whole(store, pulled)
    ranges = [seen.headers.get("range", "") for seen in proxy.bodies(digest)]
    assert ranges[0] == ""
    # A reset may overtake bytes that were sent before it.
    first, second = (int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges[1:])
    assert first <= 100_000
    assert first <= second <= first + 50_000
    assert reset or (first, second) == (100_000, 150_000)


@pytest.mark.parametrize("seed", range(1 if IN_TEST_MACHINE else 5))
def test_cuts_anywhere_are_survived(store: ImageStore, registry: Registry, seed: int) -> None:
    chance = random.Random(seed)
    faults = [
        Fault(chance.choice([BLOB, "/manifests/"]), cut=chance.randrange(0, 2000), reset=chance.random() < 0.5)
        for _ in range(4)
    ]
    pulled, _ = attempt(store, registry, *faults)
    assert is_whole(store, pulled)


def test_a_second_attempt_goes_on_where_the_first_one_stopped(
    store: ImageStore, registry: Registry, layout: Layout
) -> None:
    digest = large(layout)
    with pytest.raises(RegistryError, match=r"the connection broke 6 times with \d+ of \d+ bytes there") as caught:
        attempt(store, registry, Fault(digest, cut=200_000), Fault(digest, times=100, cut=0))
    assert caught.value.reason == "unreachable"
    nothing_was_committed(store)
    pulled, proxy = attempt(store, registry)
    assert [seen.headers.get("range") for seen in proxy.bodies(digest)] == ["bytes=200000-"]
    assert is_whole(store, pulled)


def test_a_stalled_connection_is_given_up(store: ImageStore, registry: Registry, layout: Layout) -> None:
    timing = QUICK._replace(stall=0.2 * SLOW)
    pulled, _ = attempt(store, registry, Fault(large(layout), cut=1000, stall=True), timing=timing)
    assert is_whole(store, pulled)
    with pytest.raises(RegistryError, match=r"no answer from .* for too long") as caught:
        silent = Fault("/manifests/", times=100, refuse=True, stall=True)
        attempt(store, registry, silent, name="app:two", timing=timing._replace(attempts=2))
    assert caught.value.reason == "timeout"


@pytest.mark.parametrize("code", [500, 429])
def test_a_registry_that_is_busy_is_asked_again(store: ImageStore, registry: Registry, code: int) -> None:
    faults = [Fault(path, times=2, change=status(code)) for path in ("/manifests/", BLOB)]
    pulled, _ = attempt(store, registry, *faults)
    assert is_whole(store, pulled)


@pytest.mark.parametrize(("code", "reason"), [(500, "server"), (429, "rate-limit")])
def test_a_registry_that_stays_busy_is_an_error(store: ImageStore, registry: Registry, code: int, reason: str) -> None:
    with pytest.raises(RegistryError, match=f"HTTP {code}") as caught:
        attempt(store, registry, Fault(BLOB, times=100, change=status(code)))
    assert (caught.value.reason, caught.value.status) == (reason, code)
    nothing_was_committed(store)


def test_a_registry_is_left_alone_for_as_long_as_it_asks(store: ImageStore, registry: Registry) -> None:
    busy = Fault("/manifests/", change=status(429, **{"retry-after": "1"}))
    start = time.monotonic()
    pulled, _ = attempt(store, registry, busy)
    assert time.monotonic() - start >= 1
    assert is_whole(store, pulled)
    with pytest.raises(RegistryError, match="HTTP 429"):
        tomorrow = Fault("/manifests/", change=status(429, **{"retry-after": "86400"}))
        attempt(ImageStore(store.root.parent / "2"), registry, tomorrow)


def test_a_registry_without_ranges_is_read_from_the_beginning(
    store: ImageStore, registry: Registry, layout: Layout
) -> None:
    digest = large(layout)
    whole = (layout.path / "blobs/sha256" / digest[7:]).read_bytes()

    def from_the_start(answer: Answer) -> Answer:
        kept = {name: value for name, value in answer.headers.items() if name != "content-range"}
        return Answer(200, kept, whole)

    pulled, proxy = attempt(store, registry, Fault(digest, cut=100_000), Fault(digest, change=from_the_start))
    assert is_whole(store, pulled)
    assert len(proxy.bodies(digest)) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        headers(**{"content-range": "bytes 7-99999/300014"}),
        headers(**{"content-range": "nonsense"}),
        status(416),
    ],
    ids=["elsewhere", "nonsense", "416"],
)
def test_a_range_that_was_not_asked_for_is_not_used(
    store: ImageStore, registry: Registry, layout: Layout, wrong: Callable[[Answer], Answer]
) -> None:
    digest = large(layout)
    pulled, proxy = attempt(store, registry, Fault(digest, cut=100_000), Fault(digest, change=wrong))
    assert is_whole(store, pulled)
    assert [seen.headers.get("range") for seen in proxy.bodies(digest)] == [None, "bytes=100000-", None]


def test_bytes_that_changed_on_the_way_are_fetched_once_more(
    store: ImageStore, registry: Registry, layout: Layout
) -> None:
    pulled, proxy = attempt(store, registry, Fault(large(layout), change=flipped(12_345)))
    assert is_whole(store, pulled)
    assert len(proxy.bodies(large(layout))) == 2


def test_damage_before_a_cut_is_found_and_nothing_of_it_is_kept(
    store: ImageStore, registry: Registry, layout: Layout
) -> None:
    digest = large(layout)
    pulled, proxy = attempt(store, registry, Fault(digest, change=flipped(50), cut=100_000))
    assert is_whole(store, pulled)
    assert [seen.headers.get("range") for seen in proxy.bodies(digest)] == [None, "bytes=100000-", None]


def test_a_blob_that_is_not_what_its_digest_says_is_discarded(
    store: ImageStore, registry: Registry, layout: Layout
) -> None:
    """Seen to fail with the comparison of digests taken out of Partial.commit()."""
    with pytest.raises(RegistryError, match="have the digest sha256:") as caught:
        attempt(store, registry, Fault(large(layout), times=100, change=flipped(7)))
    assert caught.value.reason == "digest"
    nothing_was_committed(store)
    assert not (store.root / "ingest" / large(layout)[7:]).exists()


def test_what_a_mirror_damages_comes_from_the_registry(store: ImageStore, registry: Registry, layout: Layout) -> None:
    async def work() -> tuple[Pulled, FaultProxy]:
        async with FaultProxy(registry.host, Fault(BLOB, times=99, change=flipped(7))) as mirror:
            config = plain(mirror.host)
            config.registries[registry.host] = Configured((mirror.host,), "http")
            return await pull_from(store, f"{registry.host}/app:two", config), mirror

    pulled, mirror = asyncio.run(work())
    assert is_whole(store, pulled)
    assert len(mirror.bodies(BLOB)) == 3


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(store: ImageStore, registry: Registry) -> None:
    """Seen to fail without the comparison in Client._manifest()."""
    lie = headers(**{"docker-content-digest": "sha256:" + "0" * 64})
    with pytest.raises(RegistryError, match="its digest is sha256:") as caught:
        attempt(store, registry, Fault("/manifests/two", times=9, change=lie))
    assert caught.value.reason == "digest"
    with pytest.raises(RegistryError, match="its digest is sha256:"):
        attempt(store, registry, Fault("/manifests/sha256:", times=9, change=flipped(40)), name="app:many")
    nothing_was_committed(store)


@pytest.mark.parametrize("length", [-100, 10**12])
def test_a_wrong_length_is_not_believed(store: ImageStore, registry: Registry, layout: Layout, length: int) -> None:
    with pytest.raises(RegistryError, match="bytes are announced where the manifest says") as caught:
        attempt(store, registry, Fault(large(layout), times=100, length=length))
    assert caught.value.reason == "digest"
    nothing_was_committed(store)


def test_a_body_without_end_is_cut_where_the_blob_ends(store: ImageStore, registry: Registry, layout: Layout) -> None:
    longer = Fault(large(layout), change=lambda answer: answer._replace(body=answer.body + b"more"), length=-4)
    pulled, _ = attempt(store, registry, longer)
    assert is_whole(store, pulled)


def test_a_huge_manifest_is_not_read_to_its_end(store: ImageStore, registry: Registry) -> None:
    """CVE-2020-1702. Seen to fail with the limit taken out of Transport.read()."""
    huge = Fault("/manifests/", times=9, change=lambda answer: answer._replace(body=b" " * (64 << 20)))
    with pytest.raises(RegistryError, match="longer than 4194304 bytes"):
        attempt(store, registry, huge)

    def with_huge_config(answer: Answer) -> Answer:
        document = json.loads(answer.body)
        document["config"]["size"] = 1 << 40
        told = {name: value for name, value in answer.headers.items() if name != "docker-content-digest"}
        return Answer(200, told, json.dumps(document).encode())

    with pytest.raises(ImageError, match="1099511627776 bytes are over the limit"):
        attempt(store, registry, Fault("/manifests/", change=with_huge_config))
    nothing_was_committed(store)


def test_a_document_that_is_manifest_and_index_is_refused(
    store: ImageStore, registry: Registry, layout: Layout
) -> None:
    """CVE-2021-41190, over the wire. Seen to fail without _refuse_mixed() in rootfs/images/model.py."""

    def mixed(answer: Answer) -> Answer:
        document = json.loads(answer.body) | {"manifests": []}
        told = {name: value for name, value in answer.headers.items() if name != "docker-content-digest"}
        return Answer(200, told, json.dumps(document).encode())

    with pytest.raises(ImageError, match="could be read as two different images"):
        attempt(store, registry, Fault("/manifests/two", change=mixed))
    relabelled = headers(**{"content-type": "application/vnd.oci.image.index.v1+json"})
    with pytest.raises(ImageError, match="mediaType"):
        attempt(store, registry, Fault("/manifests/two", change=relabelled))
    nothing_was_committed(store)


def test_an_address_in_a_manifest_is_never_followed(store: ImageStore, registry: Registry) -> None:
    """CVE-2020-15157 began with one. Nobody listens at the address; that nothing asked for it shows in the error."""

    def foreign(answer: Answer) -> Answer:
        document = json.loads(answer.body)
        document["layers"][0]["urls"] = ["http://127.0.0.1:1/layer"]
        document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        told = {name: value for name, value in answer.headers.items() if name != "docker-content-digest"}
        return Answer(200, told, json.dumps(document).encode())

    with pytest.raises(ImageError, match="not distributable"):
        attempt(store, registry, Fault("/manifests/two", change=foreign))
    nothing_was_committed(store)


@pytest.mark.parametrize("after", [0.1] if IN_TEST_MACHINE else [0.05, 0.2])
def test_a_pull_that_is_killed_leaves_nothing_by_half(
    store: ImageStore, registry: Registry, layout: Layout, after: float
) -> None:
    """SIGKILL while a layer is on its way; then a pull as if nothing had been, which needs what is missing alone."""

    async def work() -> tuple[Pulled, int]:
        async with FaultProxy(registry.host, Fault(large(layout), cut=250_000, stall=True)) as proxy:
            name = f"{proxy.host}/app:two"
            code = (
                "import asyncio, sys; from pathlib import Path; from rootfs.images.store import ImageStore;"
                "from tests.registry_fixtures import plain, pull_from;"
                "asyncio.run(pull_from(ImageStore(Path(sys.argv[1])), sys.argv[2], plain(sys.argv[3])))"
            )
            command = [sys.executable, "-c", code, str(store.root), name, proxy.host]
            process = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[2])
            while not proxy.bodies(large(layout)):
                await asyncio.sleep(0.01)
            await asyncio.sleep(after)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            with pytest.raises(RawpodError):
                store.get(name)
            nothing_was_committed(store)
            before = len(proxy.bodies(BLOB))
            pulled = await pull_from(store, name, plain(proxy.host))
            return pulled, len(proxy.bodies(BLOB)) - before

    pulled, fetched = asyncio.run(work())
    assert is_whole(store, pulled)
    assert fetched <= 3
    store.prune()
    assert os.listdir(store.root / "tmp") == []
    assert os.listdir(store.root / "ingest") == []
    assert os.listdir(store.root / "leases") == []


def test_a_full_disk_is_told_and_leaves_nothing_by_half(registry: Registry, layout: Layout, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounts.mount("tmpfs", small, "tmpfs", 0, "size=200k")
    registries = tmp_path / "registries.toml"
    registries.write_text(f'registries."{registry.host}".insecure = "http"')
    try:
        with pytest.raises(HostError, match=r"image store '.*/small': no space left on device \(rawpod image prune"):
            fetch(small, f"{registry.host}/app:two", registries=registries)
        assert os.listdir(small / "names") == os.listdir(small / "tmp") == []
    finally:
        mounts.umount2(small, mounts.MNT_DETACH)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_pull_can_be_interrupted(
    store: ImageStore, registry: Registry, layout: Layout, tmp_path: Path, number: signal.Signals
) -> None:
    async def work() -> tuple[int | None, bytes]:
        async with FaultProxy(registry.host, Fault(large(layout), cut=250_000, stall=True)) as proxy:
            registries = tmp_path / "registries.toml"
            registries.write_text(f'registries."{proxy.host}".insecure = "http"')
            options = ["--root", str(store.root.parent), "--registries", str(registries)]
            command: list[str | Path] = [
                Path(sys.executable).with_name("rawpod"),
                *options,
                "pull",
                f"{proxy.host}/app:two",
            ]
            process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            while not proxy.bodies(large(layout)):
                await asyncio.sleep(0.01)
            process.send_signal(number)
            _, errors = await asyncio.wait_for(process.communicate(), 10 * SLOW)
            return process.returncode, errors

    status, errors = asyncio.run(work())
    assert status == 130
    assert b"Traceback" not in errors
    nothing_was_committed(store)
    assert os.listdir(store.root / "leases") == []


def test_two_pulls_of_one_image_share_the_work(store: ImageStore, registry: Registry) -> None:
    async def work() -> FaultProxy:
        async with FaultProxy(registry.host) as proxy:
            config = plain(proxy.host)
            pulls = (pull_from(store, f"{proxy.host}/app:two", config) for _ in range(2))
            for pulled in await asyncio.gather(*pulls):
                assert is_whole(store, pulled)
            return proxy

    proxy = asyncio.run(work())
    paths = [seen.path for seen in proxy.bodies(BLOB)]
    assert len(paths) == len(set(paths)) == 3
