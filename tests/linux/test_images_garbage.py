"""Blobs and layers go when nothing needs them: no name, no container, nobody who brings an image in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.errors import BadInput, Conflict, NotFound
from rootfs.images.document import ImageError
from rootfs.images.image import Image
from rootfs.images.importing import add_image, config_document
from rootfs.images.ingest import Ingest
from rootfs.images.model import OCI_LAYER, Descriptor
from rootfs.images.store import ImageConfig, ImageStore
from rootfs.layers.unpack import LayerError
from tests.image_kills import BASE, MORE, bring, check, digest_of, listed
from tests.image_stores import store
from tests.rootfs_lab import Archive

__all__ = ["store"]

pytestmark = pytest.mark.userland

HOME = Path(__file__).parents[2]


def image(store: ImageStore, name: str, *layers: bytes) -> Image:
    bring(store, name, *layers)
    return store.get(name)


def layers(store: ImageStore) -> list[str]:
    return [f"sha256:{layer}" for layer in listed(store, "layers")]


@pytest.fixture
def ingest(store: ImageStore) -> Iterator[Ingest]:
    with store.ingest() as opened:
        yield opened


def test_what_another_image_shares_stays(store: ImageStore) -> None:
    """Seen to fail with all blobs and layers of a removed image taken for garbage."""
    image(store, "base", BASE)
    both = image(store, "both", BASE, MORE)
    assert both.lowers == (store.places.layer(digest_of(MORE)), store.places.layer(digest_of(BASE)))
    assert store.remove("both") == ("both:latest", both.digest)
    assert layers(store) == [digest_of(BASE)]
    check(store)
    assert store.get("base")
    store.remove("base")
    assert [listed(store, place) for place in ("layers", "sizes", "blobs/sha256", "names", "tmp")] == [[]] * 5


def test_one_of_two_names_goes_alone(store: ImageStore) -> None:
    image(store, "app", BASE)
    store.tag("app", "quay.io/me/app:1")
    assert store.remove("app", lambda: {(digest_of(BASE),)}) == ("app:latest",)
    assert store.get("quay.io/me/app:1").lowers[0].exists()
    with pytest.raises(NotFound, match="'app'"):
        store.get("app")


def test_a_name_that_goes_to_another_image_leaves_one_without_a_name(store: ImageStore) -> None:
    """As Docker's <none>. Seen to lose the blobs of what a container is made of without keep_nameless()."""
    old = image(store, "app", BASE)
    new = image(store, "app", MORE)
    store.prune(lambda: {old.stack})
    assert [(found.name, found.digest) for found in store.list()][1:] == [
        ("host", store.get("host").digest),
        (old.digest, old.digest),
    ]
    check(store)
    assert store.get(old.digest).lowers == old.lowers
    assert store.prune().images == (old.digest,)
    assert layers(store) == [digest_of(MORE)] == list(new.layers)


def test_what_a_container_is_made_of_stays(store: ImageStore) -> None:
    """Seen to lose its blobs with is_used() that always says no."""
    both = image(store, "both", BASE, MORE)
    running = lambda: {both.stack}  # noqa: E731
    with pytest.raises(Conflict, match="in use"):
        store.remove("both", running)
    assert store.prune(running, unused=True).images == ()
    assert store.remove("both", running, force=True) == ("both:latest",)
    store.prune(running)
    assert layers(store) == sorted(both.layers)
    check(store)
    assert store.prune().images == (both.digest,)
    assert layers(store) == []


def test_a_base_is_not_in_use_because_an_image_on_top_of_it_is(store: ImageStore) -> None:
    image(store, "base", BASE)
    both = image(store, "both", BASE, MORE)
    store.remove("base", lambda: {both.stack})
    assert layers(store) == sorted(both.layers)


def test_a_container_that_starts_meanwhile_gets_its_layers_back(store: ImageStore) -> None:
    """Seen to lose them with clear_rubbish() that asks nobody."""
    made = image(store, "app", BASE)
    answers = iter([set(), {made.stack}])
    store.prune(lambda: next(answers, {made.stack}), unused=True)
    assert made.lowers[0].exists()
    store.prune()
    assert not made.lowers[0].exists()


def test_prune_with_unused_takes_every_image_that_no_container_is_made_of(store: ImageStore) -> None:
    kept = image(store, "kept", BASE)
    gone = image(store, "gone", MORE)
    pruned = store.prune(lambda: {kept.stack}, unused=True)
    assert pruned.images == ("gone:latest",)
    assert pruned.layers == gone.layers
    assert set(pruned.blobs) >= {gone.digest, gone.id, digest_of(MORE)}
    assert pruned.size >= len(MORE)
    check(store)


def test_what_is_being_brought_in_stays(store: ImageStore) -> None:
    """Seen to go with the leases left out of what is kept."""
    image(store, "app", BASE)
    with store.ingest() as ingest:
        assert ingest.has_blob(digest_of(BASE))
        assert ingest.has_layer(digest_of(BASE))
        added = ingest.add_blob(b"{}")
        store.remove("app")
        store.prune(unused=True)
        assert ingest.read_blob(added) == b"{}"
        assert ingest.has_layer(digest_of(BASE))
        bring(store, "app", BASE)
    assert store.get("app").lowers[0].exists()
    store.prune()
    assert added not in [f"sha256:{blob}" for blob in listed(store, "blobs/sha256")]
    check(store)


def test_the_lease_of_the_dead_holds_nothing(store: ImageStore) -> None:
    code = f"""
import os, sys
from pathlib import Path
from rootfs.images.store import ImageStore
ingest = ImageStore(Path({str(store.root)!r})).ingest()
ingest.add_blob(b"x")
with ingest.partial("sha256:" + "a" * 64, 100) as partial:
    partial.write(b"part")
    print(flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=HOME, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        store.prune()
        assert len(listed(store, "blobs/sha256")) == len(listed(store, "leases")) == len(listed(store, "ingest")) == 1
        with store.ingest() as mine, pytest.raises(Conflict, match="being written"):
            mine.partial("sha256:" + "a" * 64, 100, wait=False)
        other.kill()
    store.prune(older_than=1000)
    assert [listed(store, place) for place in ("blobs/sha256", "leases", "ingest")] == [[], [], ["a" * 64]]
    assert store.prune().unfinished == ("sha256:" + "a" * 64,)
    assert listed(store, "ingest") == []


def test_many_processes_at_once(store: ImageStore) -> None:
    """Each brings images in, tags and removes them, and prunes. Seen to fail without the lock and without leases."""
    code = f"""
import sys
from contextlib import suppress
from pathlib import Path
from kernel.errors import NotFound
from rootfs.images.store import ImageStore
from tests.image_kills import BASE, MORE, bring
store = ImageStore(Path({str(store.root)!r}))
mine = "app" + sys.argv[1]
for _ in range(3):
    bring(store, mine, BASE, MORE)
    assert store.get(mine).lowers[0].exists()
    store.tag(mine, "shared")
    store.remove(mine)
    with suppress(NotFound):
        store.remove("shared")
    store.prune()
bring(store, mine, BASE)
"""
    command = [sys.executable, "-c", code]
    others = [subprocess.Popen([*command, str(number)], cwd=HOME, stderr=subprocess.PIPE) for number in range(4)]
    for other in others:
        _, errors = other.communicate()
        assert other.returncode == 0, errors.decode()
    check(store)
    store.prune()
    assert [listed(store, place) for place in ("tmp", "leases", "ingest")] == [[], [], []]


def test_a_blob_is_taken_up_where_it_ended(store: ImageStore, ingest: Ingest) -> None:
    data = os.urandom(5000)
    with ingest.partial(digest_of(data), 5000) as partial:
        partial.write(data[:3000])
    with store.ingest() as other, other.partial(digest_of(data), 5000) as partial:
        assert partial.offset == 3000
        partial.write(data[3000:])
        partial.commit()
    assert ingest.read_blob(digest_of(data)) == data
    assert store.places.blob(digest_of(data)).stat().st_mode & 0o7777 == 0o600
    with ingest.partial(digest_of(data), 5000) as partial:
        assert partial.complete
        partial.commit()
    assert listed(store, "ingest") == []


@pytest.mark.parametrize(
    ("size", "data", "reason"),
    [(3, b"abd", "have the digest"), (3, b"ab", "ended after 2 of 3"), (2, b"abc", "more than")],
)
def test_a_blob_that_is_not_what_was_announced_is_discarded(
    store: ImageStore, ingest: Ingest, size: int, data: bytes, reason: str
) -> None:
    """bad-inputs: digest or size mismatch. Seen to be kept without each of the three comparisons."""
    with ingest.partial(digest_of(b"abc"), size) as partial, pytest.raises(ImageError, match=reason):
        partial.write(data)
        partial.commit()
    assert listed(store, "ingest") == listed(store, "blobs/sha256") == []


def test_a_layer_that_is_not_what_the_configuration_says_is_refused(store: ImageStore, ingest: Ingest) -> None:
    """bad-inputs: diff_id mismatch. Seen to become a layer of that name without the comparison."""
    descriptor = Descriptor(OCI_LAYER, ingest.add_blob(BASE), len(BASE))
    with pytest.raises(LayerError, match=f"layer '{digest_of(BASE)}': .*configuration says {digest_of(MORE)}"):
        ingest.unpack(descriptor, digest_of(MORE))
    assert listed(store, "layers") == listed(store, "tmp") == []


def test_an_image_is_named_only_when_all_of_it_is_there(store: ImageStore, ingest: Ingest) -> None:
    """Seen to be named without each of the three checks."""
    descriptor = Descriptor(OCI_LAYER, digest_of(BASE), len(BASE))
    config = config_document(ImageConfig(), [digest_of(BASE)])
    manifest = add_image(ingest, config, [descriptor])
    with pytest.raises(ImageError, match=f"blob {digest_of(BASE)} is not there"):
        ingest.commit("app", manifest)
    ingest.add_blob(BASE)
    with pytest.raises(ImageError, match=r"rootfs.diff_ids\[0\]: layer .* is not unpacked"):
        ingest.commit("app", manifest)
    ingest.unpack(descriptor, digest_of(BASE))
    with pytest.raises(ImageError, match="descriptor says 5"):
        ingest.commit("app", add_image(ingest, config, [descriptor._replace(size=5)]))
    assert [found.name for found in store.list()] == ["host"]
    assert ingest.commit("app", manifest) == store.get("app")


def test_a_damaged_document_is_told(store: ImageStore, ingest: Ingest) -> None:
    digest = ingest.add_blob(b"{}")
    store.places.blob(digest).write_bytes(b"[]")
    with pytest.raises(ImageError, match="damaged"):
        ingest.read_blob(digest)
    with pytest.raises(ImageError, match="over the limit of 1 bytes"):
        ingest.read_blob(digest, limit=1)


def test_a_layer_that_an_image_has_twice_is_mounted_once(store: ImageStore) -> None:
    """An overlay refuses the same lower directory twice (ELOOP); of two the upper one alone is seen anyway."""
    made = image(store, "app", BASE, MORE, BASE)
    assert made.layers == (digest_of(BASE), digest_of(MORE), digest_of(BASE))
    assert made.lowers == (store.places.layer(digest_of(BASE)), store.places.layer(digest_of(MORE)))


def test_layers_are_unpacked_at_once_and_a_bad_one_ends_the_others(store: ImageStore, ingest: Ingest) -> None:
    several = [Archive().add(f"file{number}", b"x").bytes() for number in range(5)]
    bad = Archive().add("../x").bytes()
    descriptors = [(Descriptor(OCI_LAYER, ingest.add_blob(data), len(data)), digest_of(data)) for data in several]
    ingest.unpack_all(descriptors)
    assert layers(store) == sorted(digest_of(data) for data in several)
    with pytest.raises(LayerError, match="leaves the root"):
        ingest.unpack_all([(Descriptor(OCI_LAYER, ingest.add_blob(bad), len(bad)), digest_of(bad)), *descriptors])
    assert listed(store, "tmp") == []


def test_images_are_found_by_digest_and_by_id(store: ImageStore) -> None:
    made = image(store, "quay.io/me/app:1", BASE)
    image(store, "other", MORE)
    for name in (
        made.digest,
        made.digest.removeprefix("sha256:"),
        made.id,
        f"quay.io/me/app@{made.digest}",
        f"quay.io/me/app:9@{made.digest}",
    ):
        assert store.get(name) == made
    for name in (f"quay.io/me/else@{made.digest}", "0000000", f"sha256:{'0' * 64}"):
        with pytest.raises(NotFound):
            store.get(name)
    assert store.look_up(made.id[7:19]) == made
    with pytest.raises(NotFound):
        store.get(made.id[7:19])  # a pod's image is never found by digits that happen to be those
    store.tag(made.id, "second")
    with pytest.raises(Conflict, match=r"has several names: .*second:latest"):
        store.remove(made.id)
    assert store.remove(made.id, force=True) == ("second:latest", "quay.io/me/app:1", made.digest)
    with pytest.raises(BadInput, match="'host'"):
        store.tag("other", "host")
