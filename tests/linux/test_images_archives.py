"""Images loaded from archives and saved to them: every form both ways, and archives of strangers."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import BadInput, Conflict, RawpodError
from rootfs.images import model
from rootfs.images.document import ImageError
from rootfs.images.image import Image, ImageConfig
from rootfs.images.importing import config_document
from rootfs.images.load import IMAGE_NAME, REF_NAME, load
from rootfs.images.platform import Platform
from rootfs.images.save import DirectoryTarget, TarTarget, save_docker, save_layout
from rootfs.images.store import ImageStore
from rootfs.layers.unpack import LayerError
from tests.image_kills import BASE, MORE, bring, check, digest_of, listed
from tests.image_stores import empty, store
from tests.rootfs_lab import Archive

__all__ = ["store"]

pytestmark = pytest.mark.userland

Json = dict[str, Any]
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def loaded(store: ImageStore, source: Path | int, platform: Platform = AMD64, name: str = "") -> list[Image]:
    with store.ingest() as ingest:
        return load(ingest, source, platform, name=name)


def saved(store: ImageStore, path: Path, *names: str, docker: bool = False) -> Path:
    with store.ingest() as ingest, open(path, "wb", buffering=0) as file:
        images = [store.find(name) for name in names]
        (save_docker if docker else save_layout)(store.places, ingest, images, TarTarget(file.fileno()))
    return path


def identity(image: Image) -> tuple[object, ...]:
    return image.name, image.digest, image.id, image.layers, image.size, image.config, image.created, image.platform


class Layout:
    """An OCI layout in memory."""

    def __init__(self) -> None:
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.manifests: list[Json] = []

    def blob(self, data: bytes | Json, media_type: str) -> Json:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        digest = digest_of(content)
        self.files[f"blobs/sha256/{digest.removeprefix('sha256:')}"] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def image(self, *layers: bytes, **changes: Any) -> Json:
        config = config_document(ImageConfig(), [digest_of(layer) for layer in layers], created=0.0)
        return self.blob(
            {
                "schemaVersion": 2,
                "mediaType": model.OCI_MANIFEST,
                "config": self.blob(dict(config), model.OCI_CONFIG),
                "layers": [self.blob(layer, model.OCI_LAYER) for layer in layers],
                **changes,
            },
            model.OCI_MANIFEST,
        )

    def add(self, descriptor: Json, name: str = "", **more: Any) -> None:
        annotations = {IMAGE_NAME: name} if name else {}
        self.manifests.append({**descriptor, "annotations": annotations, **more})

    def index(self) -> bytes:
        return json.dumps({"schemaVersion": 2, "manifests": self.manifests}).encode()

    def directory(self, path: Path) -> Path:
        for name, data in {"index.json": self.index(), **self.files}.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path

    def tar(self, path: Path) -> Path:
        archive = Archive()
        for name, data in {**self.files, "index.json": self.index()}.items():
            archive.add(name, data)
        return archive.write(path)


@pytest.fixture
def layout() -> Layout:
    return Layout()


@pytest.fixture
def nothing_left(store: ImageStore) -> Iterator[None]:
    """What a load that fails has put into the store is gone."""
    yield
    places = ("blobs/sha256", "layers", "sizes", "names", "leases", "ingest", "tmp")
    assert {place: listed(store, place) for place in places} == {place: [] for place in places}


def test_what_was_saved_is_loaded_with_the_same_digests(store: ImageStore, tmp_path: Path) -> None:
    bring(store, "app", BASE, MORE)
    bring(store, "quay.io/me/base:1", BASE)
    other = empty(store.root.parent / "other")
    images = loaded(other, saved(store, tmp_path / "both.tar", "app", "quay.io/me/base:1"))
    assert list(map(identity, images)) == [identity(store.get(name)) for name in ("app", "quay.io/me/base:1")]
    check(other)
    again = saved(other, tmp_path / "again.tar", "app", "quay.io/me/base:1")
    assert again.read_bytes() == (tmp_path / "both.tar").read_bytes()


def test_a_docker_archive_keeps_ids_and_layers(store: ImageStore, tmp_path: Path) -> None:
    bring(store, "app", BASE, MORE)
    store.tag("app", "second:2")
    archive = saved(store, tmp_path / "docker.tar", "app", "second:2", docker=True)
    other = empty(store.root.parent / "other")
    images = loaded(other, archive)
    assert [(image.name, image.id, image.layers) for image in images] == [
        (name, store.get("app").id, store.get("app").layers) for name in ("app:latest", "second:2")
    ]
    assert images[0].media_type == model.DOCKER_MANIFEST
    check(other)
    assert saved(other, tmp_path / "again.tar", "app", "second:2", docker=True).read_bytes() == archive.read_bytes()


def test_compressed_layers_are_plain_in_a_docker_archive(store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    layer = layout.blob(gzip.compress(BASE), f"{model.OCI_LAYER}+gzip")
    layout.add(layout.image(BASE, layers=[layer]), "app")
    (image,) = loaded(store, layout.tar(tmp_path / "app.tar"))
    archive = saved(store, tmp_path / "docker.tar", "app", docker=True)
    with tarfile.open(archive) as opened:
        member = opened.extractfile(f"{digest_of(BASE).removeprefix('sha256:')}.tar")
        assert member and member.read() == BASE
    assert loaded(empty(store.root.parent / "other"), archive)[0].id == image.id
    store.places.blob(layer["digest"]).write_bytes(gzip.compress(MORE))
    with pytest.raises(ImageError, match="is damaged"):
        saved(store, tmp_path / "docker.tar", "app", docker=True)


def test_a_layout_is_a_directory_as_well(store: ImageStore, tmp_path: Path) -> None:
    bring(store, "app", BASE)
    with store.ingest() as ingest:
        save_layout(store.places, ingest, [store.find("app")], DirectoryTarget(tmp_path / "layout"))
    (image,) = loaded(empty(store.root.parent / "other"), tmp_path / "layout")
    assert identity(image) == identity(store.get("app"))
    with pytest.raises(Conflict, match="not empty"):
        DirectoryTarget(tmp_path / "layout")


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_an_archive_comes_through_a_pipe(
    store: ImageStore, layout: Layout, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    layout.add(layout.image(BASE), "app")
    data = compress(layout.tar(tmp_path / "app.tar").read_bytes())
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        with open(writer, "wb") as file:
            file.write(data)
        os._exit(0)
    os.close(writer)
    (image,) = loaded(store, reader)
    os.close(reader)
    os.wait()
    assert image == store.get("app")


def test_names_come_from_either_annotation_or_from_the_user(store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    image = layout.image(BASE)
    layout.manifests = [{**image, "annotations": {REF_NAME: "localhost/app:2"}}]
    assert [found.name for found in loaded(store, layout.tar(tmp_path / "a.tar"))] == ["localhost/app:2"]
    layout.manifests = [{**image, "annotations": {REF_NAME: "latest"}}]
    archive = layout.tar(tmp_path / "b.tar")
    assert [found.name for found in loaded(store, archive, name="mine")] == ["mine:latest"]
    fresh = empty(store.root.parent / "fresh")
    assert [found.name for found in loaded(fresh, archive)] == [image["digest"]]
    assert [found.name for found in fresh.list()] == ["host", image["digest"]]


def test_the_image_for_this_platform_is_taken(store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    """From an index, and from several entries of one name; what attests to an image is none."""
    entries = [
        {**layout.image(BASE), "platform": {"os": "linux", "architecture": "amd64"}},
        {**layout.image(MORE), "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        {
            **layout.image(BASE, MORE),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
    ]
    index = layout.blob({"schemaVersion": 2, "mediaType": model.OCI_INDEX, "manifests": entries}, model.OCI_INDEX)
    layout.add(index, "app")
    (image,) = loaded(store, layout.tar(tmp_path / "index.tar"), ARM64)
    assert (image.layers, image.repo_digest) == ((digest_of(MORE),), index["digest"])
    assert store.get(f"app@{index['digest']}").digest == image.digest
    layout.manifests = entries
    (image,) = loaded(store, layout.directory(tmp_path / "flat"), AMD64)
    assert image.layers == (digest_of(BASE),)


def docker_archive(path: Path, *entries: Json, **members: Archive) -> Path:
    config = json.dumps(dict(config_document(ImageConfig(), [digest_of(BASE)], created=0.0))).encode()
    archive = Archive().directory("old").add("old/VERSION", b"1.0").add("old/json", b"{}").add("layer.tar", BASE)
    archive.symlink("old/layer.tar", "../layer.tar").hard_link("other/layer.tar", "old/layer.tar")
    archive.symlink("loop/layer.tar", "layer.tar").symlink("up/layer.tar", "../../../../etc/passwd")
    archive.add("config.json", config).add("repositories", b"{}")
    whole = [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"], **entry} for entry in entries]
    return archive.add("manifest.json", json.dumps(whole).encode()).write(path)


@pytest.mark.parametrize("layer", ["old/layer.tar", "other/layer.tar", "./old/../layer.tar"])
def test_layers_of_a_docker_archive_are_found_through_links(store: ImageStore, tmp_path: Path, layer: str) -> None:
    """As Docker wrote it for many years."""
    (image,) = loaded(store, docker_archive(tmp_path / "docker.tar", {"Layers": [layer]}))
    assert (image.name, image.layers) == ("app:1", (digest_of(BASE),))
    store.remove("app:1")
    assert listed(store, "blobs/sha256") == []


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Layers": []}, r"Layers: an image without layers"),
        ({"Layers": ["layer.tar", "layer.tar"]}, r"rootfs.diff_ids: 1 of them, and the manifest has 2"),
        ({"Layers": ["config.json"]}, r"cannot|archive|header"),
        ({"Layers": ["loop/layer.tar/layer.tar"]}, "is not in the archive"),
        ({"Layers": ["up/layer.tar"]}, "'up/layer.tar' is not in the archive"),
        ({"Config": "../../../etc/passwd"}, "is not in the archive"),
        ({"Config": "layer.tar"}, "not UTF-8|not JSON"),
        ({"Config": None}, r"Config: is missing"),
        ({"RepoTags": ["../x"]}, r"RepoTags\[0\]: image reference"),
        ({"layers": ["layer.tar"]}, "by case alone"),
    ],
)
def test_a_docker_archive_that_contradicts_itself_is_refused(
    store: ImageStore, tmp_path: Path, changes: Json, reason: str
) -> None:
    with pytest.raises(RawpodError, match=reason):
        loaded(store, docker_archive(tmp_path / "docker.tar", changes))


def test_links_of_a_docker_archive_end(store: ImageStore, tmp_path: Path) -> None:
    """Seen to go on for ever without the limit."""
    archive = Archive().symlink("a/layer.tar", "../b/layer.tar").symlink("b/layer.tar", "../a/layer.tar")
    archive.add("manifest.json", b'[{"Config": "a/layer.tar", "Layers": []}]')
    with pytest.raises(ImageError, match="link to a link"):
        loaded(store, archive.write(tmp_path / "links.tar"))


@pytest.mark.usefixtures("nothing_left")
class TestBadLayouts:
    def refused(self, store: ImageStore, source: Path, reason: str, kind: type[RawpodError] = ImageError) -> None:
        with pytest.raises(kind, match=reason):
            loaded(store, source)

    def test_a_blob_that_is_missing(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        layout.add(layout.image(BASE))
        del layout.files[f"blobs/sha256/{digest_of(BASE).removeprefix('sha256:')}"]
        for source in (layout.tar(tmp_path / "a.tar"), layout.directory(tmp_path / "a")):
            self.refused(store, source, f"blob {digest_of(BASE)} is not there")

    def test_a_blob_that_is_another(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        """Seen to be taken from a tar without the comparison in _store()."""
        layout.add(layout.image(BASE))
        name = f"blobs/sha256/{digest_of(BASE).removeprefix('sha256:')}"
        layout.files[name] = bytes(len(BASE))
        self.refused(store, layout.tar(tmp_path / "a.tar"), f"member '{name}': its digest is", LayerError)
        self.refused(store, layout.directory(tmp_path / "a"), f"blob {digest_of(BASE)}: its .* have the digest")

    def test_a_size_that_is_another(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        layer = layout.blob(BASE, model.OCI_LAYER)
        layout.add(layout.image(BASE, layers=[layer | {"size": 5}]))
        self.refused(store, layout.tar(tmp_path / "a.tar"), "where its descriptor says 5")
        self.refused(store, layout.directory(tmp_path / "a"), "more than the 5 bytes announced")

    def test_a_diff_id_that_is_another(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        layout.add(layout.image(BASE, layers=[layout.blob(MORE, model.OCI_LAYER)]))
        self.refused(store, layout.tar(tmp_path / "a.tar"), "configuration says", LayerError)

    def test_a_layer_of_an_unknown_kind(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        layout.add(layout.image(BASE, layers=[layout.blob(BASE, "application/x-zip")]))
        self.refused(store, layout.tar(tmp_path / "a.tar"), f"'application/x-zip' of layer {digest_of(BASE)}")

    def test_a_manifest_that_is_an_index_too(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        """Row 35, CVE-2021-41190; how it was seen to fail says tests/unit/test_images_model."""
        layout.add(layout.image(BASE, manifests=[]))
        self.refused(store, layout.tar(tmp_path / "a.tar"), "two different images")
        layout.manifests = [layout.image(BASE) | {"mediaType": model.OCI_INDEX}]
        self.refused(store, layout.tar(tmp_path / "b.tar"), "announced")

    def test_a_tar_of_a_root(self, store: ImageStore, tmp_path: Path) -> None:
        root = Archive().directory("etc").add("etc/passwd", b"root").write(tmp_path / "root.tar")
        self.refused(store, root, "no archive of images: 'etc/passwd'", BadInput)
        self.refused(store, Archive().directory("etc").write(tmp_path / "root.tar"), "neither", BadInput)

    def test_no_layout_or_another_version(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        layout.add(layout.image(BASE))
        layout.files["oci-layout"] = b'{"imageLayoutVersion":"2.0.0"}'
        self.refused(store, layout.tar(tmp_path / "a.tar"), "'2.0.0' is not supported")
        del layout.files["oci-layout"]
        self.refused(store, layout.tar(tmp_path / "b.tar"), "has index.json and no oci-layout")
        self.refused(store, Layout().tar(tmp_path / "c.tar"), "there is no image in it")

    def test_documents_twice_and_documents_too_large(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        """Row 36. Seen to be read whole without the limit."""
        twice = Archive().add("index.json", b"{}").add("./index.json", b"[]").write(tmp_path / "a.tar")
        self.refused(store, twice, "it is there twice", LayerError)
        large = Archive().add("manifest.json", b" " * (5 << 20)).write(tmp_path / "b.tar")
        self.refused(store, large, "over the limit", LayerError)
        layout.add(layout.image(BASE))
        directory = layout.directory(tmp_path / "c")
        os.truncate(directory / "index.json", 1 << 40)
        self.refused(store, directory, "over the limit")

    def test_several_images_for_one_name(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        layout.add(layout.image(BASE), "one")
        layout.add(layout.image(MORE), "two")
        with pytest.raises(BadInput, match=r"holds 2 images for one name: docker\.io/library/one:latest"):
            loaded(store, layout.tar(tmp_path / "a.tar"), name="mine")

    def test_two_images_of_one_name(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        """bad-inputs: ambiguous index. Seen to take the first without counting."""
        layout.add(layout.image(BASE), "one")
        layout.add(layout.image(MORE), "one")
        self.refused(store, layout.tar(tmp_path / "a.tar"), "ambiguous: 2 manifests")

    def test_links_that_lead_out_of_a_directory(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        """Seen to be followed without RESOLVE_BENEATH."""
        layout.add(layout.image(BASE))
        directory = layout.directory(tmp_path / "layout")
        (directory / "index.json").rename(tmp_path / "index.json")
        for target in ("../index.json", str(tmp_path / "index.json")):
            (directory / "index.json").unlink(missing_ok=True)
            (directory / "index.json").symlink_to(target)
            self.refused(store, directory, "cannot open index.json")
        (directory / "index.json").unlink()
        os.mkfifo(directory / "index.json")
        self.refused(store, directory, "not a regular file")

    def test_archives_that_end_or_are_none(self, store: ImageStore, layout: Layout, tmp_path: Path) -> None:
        layout.add(layout.image(BASE))
        whole = layout.tar(tmp_path / "a.tar").read_bytes()
        (tmp_path / "b.tar").write_bytes(gzip.compress(whole)[:-20])
        self.refused(store, tmp_path / "b.tar", "cannot decompress", LayerError)
        (tmp_path / "c.tar").write_bytes(whole[: len(whole) // 2])
        self.refused(store, tmp_path / "c.tar", "truncated", LayerError)
        (tmp_path / "d.tar").write_bytes(os.urandom(2048))
        self.refused(store, tmp_path / "d.tar", "offset 0", LayerError)
        self.refused(store, tmp_path / "missing", "cannot open", BadInput)


def test_of_several_images_all_are_loaded_or_none(store: ImageStore, layout: Layout, tmp_path: Path) -> None:
    """Seen to load the first one with names given as soon as each is there."""
    bring(store, "app", BASE)
    before = store.get("app")
    layout.add(layout.image(BASE, MORE), "app")
    layout.add(layout.image(BASE, layers=[]), "bad")
    with pytest.raises(ImageError, match="without layers"):
        loaded(store, layout.tar(tmp_path / "a.tar"))
    assert store.get("app") == before
    check(store)
    store.remove("app")
    assert listed(store, "blobs/sha256") == listed(store, "layers") == []


def test_an_import_comes_through_a_stream_and_has_a_configuration(store: ImageStore) -> None:
    made = store.import_tar("app", io.BytesIO(BASE), env=("A=1",), user="web", labels={"a": "b"})
    assert store.get("app").config == ImageConfig(env=("A=1",), user="web", labels={"a": "b"})
    assert made.layers == (digest_of(BASE),)
    assert store.places.blob(digest_of(BASE)).read_bytes() == BASE
