"""Manifests, indexes and configurations of images: what is understood, and what is refused with its field."""

import json
from typing import Any

import pytest

from kernel.errors import BadInput
from rootfs.images import model
from rootfs.images.document import DOCUMENT_MAX, ImageError
from rootfs.images.image import Healthcheck
from rootfs.images.model import Descriptor, Index, Manifest, choose, parse_config, parse_manifest, resolve
from rootfs.images.platform import Platform, parse_platform

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")


def descriptor(media_type: str, digest: str = A, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": 3, **more}


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": model.OCI_MANIFEST,
        "config": descriptor(model.OCI_CONFIG),
        "layers": [descriptor(f"{model.OCI_LAYER}+gzip", B)],
        **changes,
    }


def index(*manifests: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": model.OCI_INDEX, "manifests": list(manifests), **changes}


def config(**changes: Any) -> dict[str, Any]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [C]},
        **changes,
    }


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def for_platforms(*names: str) -> Index:
    return Index(
        model.OCI_INDEX,
        tuple(
            Descriptor(model.OCI_MANIFEST, f"sha256:{number:064}", 3, Platform(*name.split("/")).normal())
            for number, name in enumerate(names)
        ),
    )


def test_manifests_of_oci_and_of_docker_are_read_alike() -> None:
    docker = manifest(
        mediaType=model.DOCKER_MANIFEST,
        config=descriptor(model.DOCKER_CONFIG),
        layers=[descriptor(f"{model.DOCKER_LAYER}.gzip", B)],
    )
    for document, kind in ((manifest(), model.OCI_MANIFEST), (docker, model.DOCKER_MANIFEST)):
        found = parse_manifest(encoded(document), f"{kind}; charset=utf-8")
        assert isinstance(found, Manifest)
        assert (found.media_type, found.config.digest, [layer.digest for layer in found.layers]) == (kind, A, [B])
        assert parse_manifest(encoded(document)) == found


def test_a_document_without_a_media_type_is_what_it_can_only_be() -> None:
    assert isinstance(parse_manifest(encoded(manifest(mediaType=None))), Manifest)
    assert isinstance(parse_manifest(encoded(index(mediaType=None))), Index)
    with pytest.raises(ImageError, match="mediaType: is missing"):
        parse_manifest(encoded(manifest(mediaType=None, manifests=[])))


@pytest.mark.parametrize(
    ("document", "media_type", "field"),
    [
        (manifest(manifests=[descriptor(model.OCI_MANIFEST)]), model.OCI_MANIFEST, "manifests"),
        (manifest(manifests=[]), model.OCI_MANIFEST, "manifests"),
        (index(layers=[]), model.OCI_INDEX, "layers"),
        (index(config=descriptor(model.OCI_CONFIG)), model.OCI_INDEX, "config"),
        (manifest(mediaType=None, manifests=[]), model.OCI_MANIFEST, "manifests"),
        (manifest(mediaType=None, manifests=[]), model.OCI_INDEX, "config"),
        (manifest(), model.OCI_INDEX, "mediaType"),
        (index(), model.DOCKER_INDEX, "mediaType"),
        (manifest(mediaType=None, Manifests=[]), model.OCI_MANIFEST, "Manifests"),
        (manifest(MediaType=model.OCI_INDEX), model.OCI_MANIFEST, "MediaType"),
    ],
)
def test_row_35_a_manifest_that_is_an_index_too_is_refused(document: object, media_type: str, field: str) -> None:
    """CVE-2021-41190. Seen to be taken without _refuse_mixed(), without comparing media types, and without known()."""
    with pytest.raises(ImageError) as caught:
        parse_manifest(encoded(document), media_type)
    assert caught.value.field == field


def test_a_key_that_is_there_twice_is_refused() -> None:
    """CVE-2021-41190: parsers differ in which one they take. Seen to be taken without the pairs hook."""
    data = encoded(manifest()).replace(b'"config"', b'"layers": [], "config"')
    with pytest.raises(ImageError, match="'layers' is there twice"):
        parse_manifest(data)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schemaVersion": 1}, "schemaVersion"),
        ({"schemaVersion": True}, "schemaVersion"),
        ({"fsLayers": [{}]}, "fsLayers"),
        ({"layers": []}, "layers"),
        ({"layers": None}, "layers"),
        ({"layers": {}}, "layers"),
        ({"layers": [3]}, "layers[0]"),
        ({"layers": [descriptor(model.OCI_LAYER)] * 501}, "layers"),
        ({"layers": [descriptor(model.OCI_LAYER, size=-1)]}, "layers[0].size"),
        ({"layers": [descriptor(model.OCI_LAYER, size=1e3)]}, "layers[0].size"),
        ({"layers": [descriptor(model.OCI_LAYER, size=1 << 63)]}, "layers[0].size"),
        ({"layers": [descriptor(model.OCI_LAYER, "sha512:" + "a" * 128)]}, "layers[0].digest"),
        ({"layers": [descriptor(model.OCI_LAYER, A + "\n")]}, "layers[0].digest"),
        ({"layers": [descriptor(model.OCI_LAYER, "sha256:../../etc")]}, "layers[0].digest"),
        ({"layers": [descriptor(model.OCI_LAYER, annotations={"a": 1})]}, "layers[0].annotations.a"),
        ({"layers": [descriptor(model.OCI_LAYER), descriptor("text/plain")]}, "layers[1].mediaType"),
        ({"config": descriptor("application/vnd.oci.empty.v1+json")}, "config.mediaType"),
        ({"config": None}, "config"),
        ({"mediaType": "a\0b"}, "mediaType"),
    ],
)
def test_a_malformed_manifest_is_refused_with_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_manifest(encoded(manifest(**changes)))
    assert caught.value.field == field
    assert field in str(caught.value)


def test_layers_that_we_cannot_have_are_refused_by_name() -> None:
    foreign = descriptor(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", B, urls=["https://example.com/layer"]
    )
    with pytest.raises(ImageError, match=f"{B} is not distributable, .*'https://example.com/layer'"):
        parse_manifest(encoded(manifest(layers=[foreign])))
    with pytest.raises(ImageError, match=f"encrypted' of layer {C} is not supported"):
        parse_manifest(encoded(manifest(layers=[descriptor(f"{model.OCI_LAYER}+gzip+encrypted", C)])))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe{\0}\0",
        b'{"a": NaN}',
        b'{"a": "\\ud800", "schemaVersion": 2}',
        b"[" * 100_000,
        b'{"schemaVersion": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        parse_manifest(data)


def test_row_36_a_huge_document_is_not_even_parsed() -> None:
    """CVE-2020-1702. Seen to be parsed without the limit."""
    with pytest.raises(ImageError, match="over the limit"):
        parse_manifest(encoded(manifest()) + b" " * DOCUMENT_MAX)
    with pytest.raises(ImageError, match="over the limit"):
        next(resolve(Descriptor(model.OCI_MANIFEST, A, DOCUMENT_MAX + 1), Platform("linux", "amd64")))


@pytest.mark.parametrize("media_type", ["text/html", "application/vnd.docker.distribution.manifest.v1+prettyjws"])
def test_documents_of_another_kind_are_refused_by_name(media_type: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_manifest(encoded(manifest(mediaType=None)), media_type)
    assert media_type in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "there", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/386", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["windows/amd64", "linux/386"], "linux/386"),
        ("linux/x86_64", ["linux/amd64/v3", "linux/amd64/v1"], "linux/amd64/v1"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], "linux/amd64/v2"),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/aarch64", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm64/v9.2", ["linux/arm64/v8.8", "linux/arm64/v8.7", "linux/arm64"], "linux/arm64/v8.7"),
        ("linux/arm/v6", ["linux/arm", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/arm", ["linux/arm/v8", "linux/arm/v6", "linux/arm/7"], "linux/arm/7"),
        ("linux/riscv64", ["linux/amd64", "linux/riscv64"], "linux/riscv64"),
    ],
)
def test_the_best_platform_is_chosen(machine: str, there: list[str], chosen: str) -> None:
    """As containerd's Only() orders them."""
    assert (
        choose(for_platforms(*there), Platform(*machine.split("/")))
        == for_platforms(*there).manifests[there.index(chosen)]
    )


def test_the_first_of_several_of_one_platform_is_chosen() -> None:
    """image-index.md: the first matching entry should be used."""
    assert choose(for_platforms("linux/amd64", "linux/amd64"), Platform("linux", "amd64")).digest.endswith("0")


def test_no_platform_that_fits_says_what_there_is() -> None:
    with pytest.raises(ImageError, match=r"no image for linux/amd64 \(there is linux/arm64, unknown/unknown"):
        choose(for_platforms("unknown/unknown", "linux/arm64"), Platform("linux", "amd64"))


def test_one_manifest_without_a_platform_is_taken_and_two_are_ambiguous() -> None:
    """Seen to take the first without counting."""
    first, second = (Descriptor(model.OCI_MANIFEST, digest, 3) for digest in (A, B))
    machine = Platform("linux", "amd64")
    assert choose(Index(model.OCI_INDEX, (first,)), machine) == first
    with pytest.raises(ImageError, match="ambiguous"):
        choose(Index(model.OCI_INDEX, (first, second)), machine)


def test_indexes_within_indexes_end_at_a_manifest_or_at_a_limit() -> None:
    """Seen to go on for ever without the limit and without remembering."""

    def walk(documents: dict[str, bytes], root: str) -> str:
        machine = Platform("linux", "amd64")
        steps = resolve(Descriptor(model.OCI_INDEX, root, 3), machine)
        wanted = next(steps)
        for _ in range(20):
            try:
                wanted = steps.send(documents[wanted.digest])
            except StopIteration as end:
                found: str = end.value[0].digest
                return found
        raise AssertionError("no end")

    names = [f"sha256:{number:064}" for number in range(10)]
    nested = {
        name: encoded(index(descriptor(model.OCI_INDEX, below)))
        for name, below in zip(names, [*names[1:], names[0]], strict=True)
    }
    leaf = encoded(index(descriptor(model.OCI_MANIFEST, A)))
    assert walk({**nested, names[2]: leaf, A: encoded(manifest())}, names[0]) == A
    with pytest.raises(ImageError, match="nested more than 4"):
        walk(nested, names[0])
    with pytest.raises(ImageError, match="contains itself"):
        walk({**nested, names[1]: nested[names[9]]}, names[0])


def test_a_configuration_is_read_in_full() -> None:
    found = parse_config(
        encoded(
            config(
                created="2026-01-31T12:00:00.5+01:00",
                author="a",
                config={
                    "User": "www-data:33",
                    "Env": ["A=1", "B="],
                    "Entrypoint": ["/init"],
                    "Cmd": None,
                    "WorkingDir": "/srv",
                    "StopSignal": "SIGQUIT",
                    "Volumes": {"/data": {}},
                    "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                    "Labels": {"rawpod.uid": "x"},
                    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000, "Retries": 3},
                    "ArgsEscaped": True,
                },
                history=[{"created_by": "ADD", "created": "0001-01-01T00:00:00Z"}, {"empty_layer": True}],
            )
        )
    )
    assert found.platform == Platform("linux", "amd64")
    assert found.diff_ids == (C,)
    assert found.created == 1769857200.5
    assert found.config == (
        ("A=1", "B="),
        ("/init",),
        (),
        "/srv",
        "www-data:33",
        "SIGQUIT",
        ("/data",),
        ("80/tcp", "53/udp"),
        {"rawpod.uid": "x"},
        Healthcheck(("CMD", "true"), 5_000_000_000, retries=3),
    )
    assert [entry.empty for entry in found.history] == [False, True]
    assert found.history[0].created == 0.0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rootfs": None}, "rootfs.type"),
        ({"rootfs": {"type": "chain", "diff_ids": [C]}}, "rootfs.type"),
        ({"rootfs": {"type": "layers", "diff_ids": ["../x"]}}, "rootfs.diff_ids[0]"),
        ({"config": []}, "config"),
        ({"config": {"Env": ["=x"]}}, "config.Env[0]"),
        ({"config": {"Env": ["A=1", "A=\0"]}}, "config.Env[1]"),
        ({"config": {"Env": "A=1"}}, "config.Env"),
        ({"config": {"Cmd": [1]}}, "config.Cmd[0]"),
        ({"config": {"Entrypoint": "/init"}}, "config.Entrypoint"),
        ({"config": {"User": 0}}, "config.User"),
        ({"config": {"user": "root"}}, "config.user"),
        ({"config": {"Labels": {"a": None}}}, "config.Labels.a"),
        ({"config": {"ExposedPorts": {"65536": {}}}}, "config.ExposedPorts"),
        ({"config": {"Volumes": ["/data"]}}, "config.Volumes"),
        ({"config": {"Healthcheck": {"Test": ["true"]}}}, "config.Healthcheck.Test[0]"),
        ({"config": {"Healthcheck": {"Interval": -1}}}, "config.Healthcheck.Interval"),
        ({"created": "yesterday"}, "created"),
        ({"created": "2026-13-01T00:00:00Z"}, "created"),
        ({"history": [{"empty_layer": "no"}]}, "history[0].empty_layer"),
    ],
)
def test_a_malformed_configuration_is_refused_with_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_config(encoded(config(**changes)))
    assert caught.value.field == field


def test_a_manifest_and_its_configuration_have_the_same_number_of_layers() -> None:
    """Seen to pass without the comparison."""
    found = parse_manifest(encoded(manifest()))
    assert isinstance(found, Manifest)
    model.check_layers(found, parse_config(encoded(config())), "config")
    with pytest.raises(ImageError, match=r"rootfs\.diff_ids: 0 of them, and the manifest has 1 layers"):
        model.check_layers(found, parse_config(encoded(config(rootfs={"type": "layers"}))), "config")


def test_platforms_as_an_option_takes_them() -> None:
    assert parse_platform("arm64") == Platform("linux", "arm64")
    assert str(parse_platform("linux/arm/7")) == "linux/arm/v7"
    for text in ("", "linux/", "linux/amd64/v1/x", "a b"):
        with pytest.raises(BadInput, match="OS/ARCHITECTURE"):
            parse_platform(text)
