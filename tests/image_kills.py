"""A program that brings images into a store and is killed on the way, again and again: `python -m tests.image_kills`.

Each round starts with an empty store. A child does the work and dies: just before its N-th change of the file system
(audit hooks tell of each), or by a timer at any moment. Then what is there has to make sense, the work has to succeed
when it is done again, and a prune has to leave nothing that no name needs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from rootfs.images import names
from rootfs.images.importing import add_image, config_document
from rootfs.images.ingest import read_image
from rootfs.images.load import load
from rootfs.images.model import OCI_LAYER, Descriptor
from rootfs.images.platform import here
from rootfs.images.save import TarTarget, save_layout
from rootfs.images.store import ImageConfig, ImageStore
from tests.rootfs_lab import Archive

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "subprocess.Popen"}

CHANGES = 630  # as many as "all" finds, or a few less

BASE = Archive().directory("etc").add("etc/release", b"base\n").bytes()
MORE = Archive().directory("srv").add("srv/page", b"more\n").add("etc/.wh.release").bytes()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def bring(store: ImageStore, name: str, *layers: bytes) -> None:
    """As a pull does: blobs in chunks, layers unpacked, a name."""
    with store.ingest() as ingest:
        descriptors = [Descriptor(OCI_LAYER, digest_of(layer), len(layer)) for layer in layers]
        for descriptor, layer in zip(descriptors, layers, strict=True):
            if not ingest.has_blob(descriptor.digest):
                with ingest.partial(descriptor.digest, descriptor.size) as partial:
                    while partial.offset < partial.size:
                        partial.write(layer[partial.offset :][:1000])
                    partial.commit()
            if not ingest.has_layer(descriptor.digest):
                ingest.unpack(descriptor, descriptor.digest)
        config = config_document(ImageConfig(), [item.digest for item in descriptors], created=0.0)
        ingest.commit(name, add_image(ingest, config, descriptors))


def take(store: ImageStore, archive: Path) -> None:
    """As `rawpod image load` does."""
    with store.ingest() as ingest:
        load(ingest, archive, here())


def work(store: ImageStore) -> None:
    """Every kind of change that a store knows; in the end `app` and `kept` are images of one layer."""
    take(store, store.root.parent / "archive.tar")
    bring(store, "app", BASE, MORE)
    store.tag("app", "other")
    bring(store, "app", BASE)
    store.tag("app", "kept")
    store.remove("other")
    store.remove("loaded")
    bring(store, "app", MORE)
    bring(store, "app", BASE)
    store.prune()


def make_archive(store: ImageStore, path: Path) -> None:
    """An image of two layers, saved."""
    bring(store, "loaded", BASE, MORE)
    with store.ingest() as ingest, open(path, "wb", buffering=0) as file:
        save_layout(store.places, ingest, [store.find("loaded")], TarTarget(file.fileno()))


def check(store: ImageStore) -> None:
    """What is in place is whole: blobs are what they are called, and names stand for what is there."""
    for blob in (store.root / "blobs/sha256").iterdir():
        assert digest_of(blob.read_bytes()) == f"sha256:{blob.name}"
    for name in names.read_all(store.places):
        manifest, config = read_image(store.places, name.digest)
        for blob in (manifest.config, *manifest.layers):
            assert store.places.blob(blob.digest).stat().st_size == blob.size
        for layer in config.diff_ids:
            files = {digest_of(BASE): "etc/release", digest_of(MORE): "srv/page"}
            assert (store.places.layer(layer) / files[layer]).read_text() in ("base\n", "more\n")


def listed(store: ImageStore, place: str) -> list[str]:
    return sorted(os.listdir(store.root / place))


def check_pruned(store: ImageStore) -> None:
    """Nothing is there but what two names of one image need."""
    assert [image.name for image in store.list()] == ["app:latest", "host", "kept:latest"]
    needed = [blob.removeprefix("sha256:") for blob in store.find("app").blobs]
    assert listed(store, "blobs/sha256") == sorted(needed)
    assert listed(store, "layers") == listed(store, "sizes") == [digest_of(BASE).removeprefix("sha256:")]
    assert [listed(store, place) for place in ("tmp", "leases", "ingest")] == [[], [], []]


def survived(store: ImageStore, before_death: Callable[[], None]) -> bool:
    """Let a child do the work that dies as `before_death` arranges; whether it came to the end."""
    child = os.fork()
    if child == 0:
        try:
            before_death()
            work(store)
        except BaseException as error:
            print(f"the child: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return not os.WIFSIGNALED(status)


def at_change(number: int) -> Callable[[], None]:
    """Die just before that change."""

    def arrange() -> None:
        seen = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if event in _CHANGES or writing:
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    return arrange


def after(seconds: float) -> Callable[[], None]:
    """Die at any moment: SIGALRM ends a process as suddenly as SIGKILL."""
    return lambda: signal.setitimer(signal.ITIMER_REAL, seconds)  # type: ignore[return-value]


def one_round(before_death: Callable[[], None]) -> bool:
    with TemporaryDirectory(prefix="rp-kills-", dir="/dev/shm") as directory:
        store = ImageStore(Path(directory) / "images")
        make_archive(ImageStore(Path(directory) / "other"), Path(directory) / "archive.tar")
        with store.places.locked():
            pass
        end = survived(store, before_death)
        for name in listed(store, "tmp"):
            # The worker dies with its parent and lets go of the lock.
            held = os.open(store.root / "tmp" / name, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
            os.close(held)
        check(store)
        work(store)
        check(store)
        check_pruned(store)
        return end


def main(changes: str, moments: str, seed: str) -> None:
    """`changes` and `moments`: how many of each to try, "all" for every change."""
    chosen = random.Random(seed)
    numbers = range(1, 10_000) if changes == "all" else sorted(chosen.sample(range(1, CHANGES), int(changes)))
    for number in numbers:
        try:
            if one_round(at_change(number)) and changes == "all":
                print(f"{number - 1} changes")
                break
        except BaseException:
            print(f"killed before change {number}", file=sys.stderr)
            raise
    started = time.monotonic()
    one_round(lambda: None)
    whole = (time.monotonic() - started) / 2
    for _ in range(int(moments)):
        moment = chosen.uniform(0.001, whole)
        try:
            one_round(after(moment))
        except BaseException:
            print(f"killed after {moment} s", file=sys.stderr)
            raise


if __name__ == "__main__":
    main(*sys.argv[1:])
