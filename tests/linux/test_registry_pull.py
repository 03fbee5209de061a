"""Pulling from a registry: what arrives, what is asked for, and who we say we are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel.errors import BadInput, NotFound, RawpodError
from rootfs.images.document import ImageError
from rootfs.images.platform import Platform
from rootfs.images.store import ImageStore
from rootfs.layers.unpack import LayerError
from rootfs.registry.config import Registry as Configured
from rootfs.registry.config import RegistryConfig
from rootfs.registry.errors import RegistryError
from rootfs.registry.pull import Event
from tests import registry_lab as lab
from tests.registry_fixtures import MACHINE, authority, content, fetch, layout, plain, registry, store
from tests.registry_lab import Authority, Layer, Layout, Registry, TokenServer

pytestmark = pytest.mark.userland

__all__ = ["authority", "layout", "registry", "store"]


def test_an_image_arrives_with_its_layers_and_its_configuration(
    registry: Registry, layout: Layout, store: ImageStore
) -> None:
    name = f"{registry.host}/app:one"
    events: list[Event] = []
    pulled = fetch(store, name, plain(registry.host), progress=events.append)
    assert pulled.changed
    assert pulled.image.config.cmd == ("/bin/c",)
    assert content(store, name, "etc/c") == b"c"
    assert len(content(store, name, "etc/b")) == 300_000
    index = json.loads((layout.path / "index.json").read_text())
    assert pulled.digest == index["manifests"][0]["digest"]
    last = {event.layer: event for event in events}
    assert [event.state for event in last.values()] == ["done"] * 3
    assert all(event.current == event.total for event in last.values())
    assert {"waiting", "downloading", "downloaded", "unpacking", "done"} == {event.state for event in events}


def test_a_second_pull_asks_for_nothing_but_the_manifests_digest(registry: Registry, store: ImageStore) -> None:
    for tag in ("one", "many"):
        name = f"{registry.host}/app:{tag}"
        first = fetch(store, name, plain(registry.host))
        before = len(registry.requests())
        second = fetch(store, name, plain(registry.host))
        assert registry.requests()[before:] == [("HEAD", f"/v2/app/manifests/{tag}", 200)]
        assert (second.changed, second.digest, second.image) == (False, first.digest, first.image)


def test_layers_that_are_there_are_not_fetched_again(registry: Registry, store: ImageStore) -> None:
    fetch(store, f"{registry.host}/app:one", plain(registry.host))
    lab.copy(f"docker://{registry.host}/app:one", f"docker://{registry.host}/other/name:two")
    before = len(registry.requests())
    events: list[Event] = []
    fetch(store, f"{registry.host}/other/name:two", plain(registry.host), progress=events.append)
    assert registry.requests()[before:] == [("GET", "/v2/other/name/manifests/two", 200)]
    assert {event.state for event in events} == {"waiting", "exists"}


def test_the_platform_is_chosen_from_an_index(registry: Registry, store: ImageStore) -> None:
    name = f"{registry.host}/app:many"
    fetch(store, name, plain(registry.host))
    assert content(store, name, "etc/which") == MACHINE.encode()
    fetch(store, name, plain(registry.host), platform=Platform("linux", "s390x"))
    assert content(store, name, "etc/which") == b"s390x"
    for other, which in ((Platform("linux", "386"), b"386"), (None, MACHINE.encode())):
        fetch(store, name, plain(registry.host), platform=other)
        assert content(store, name, "etc/which") == which
    with pytest.raises(ImageError, match=r"no image for linux/mips64 \(there is linux/"):
        fetch(store, name, plain(registry.host), platform=Platform("linux", "mips64"))
    with pytest.raises(NotFound, match=rf"is for linux/{MACHINE}, not for linux/s390x"):
        fetch(store, f"{registry.host}/app:one", plain(registry.host), platform=Platform("linux", "s390x"))


def test_a_digest_names_an_index_or_a_manifest(registry: Registry, store: ImageStore, layout: Layout) -> None:
    index = fetch(store, f"{registry.host}/app:many", plain(registry.host))
    assert index.digest != index.image.digest
    for digest in (index.digest, index.image.digest):
        name = f"{registry.host}/app@{digest}"
        elsewhere = ImageStore(store.root.parent / digest[7:20])
        assert fetch(elsewhere, name, plain(registry.host)).image.digest == index.image.digest
        assert elsewhere.get(name).digest == index.image.digest
        before = len(registry.requests())
        assert not fetch(elsewhere, name, plain(registry.host)).changed
        assert registry.requests()[before:] == []


def test_docker_manifests_are_understood(registry: Registry, store: ImageStore) -> None:
    target = f"{registry.host}/docker:one"
    lab.copy(f"docker://{registry.host}/app:many", f"docker://{target}", "--format", "v2s2")
    pulled = fetch(store, target, plain(registry.host))
    assert "docker.distribution.manifest.v2" in pulled.image.media_type
    assert content(store, target, "etc/which") == MACHINE.encode()


def test_a_tag_or_a_repository_that_is_not_there_is_named(registry: Registry, store: ImageStore) -> None:
    for name, code in ((f"{registry.host}/app:none", "MANIFEST_UNKNOWN"), (f"{registry.host}/no/app", "NAME_UNKNOWN|")):
        with pytest.raises(RegistryError, match=f"HTTP 404 (MANIFEST_UNKNOWN|{code})") as caught:
            fetch(store, name, plain(registry.host))
        assert (caught.value.reason, caught.value.status) == ("not-found", 404)
        assert str(caught.value).startswith(f"{name.partition(':none')[0]}: manifest '")
    assert [image.name for image in store.list()] == ["host"]


def test_only_what_is_named_insecure_is_spoken_to_without_tls(
    registry: Registry, store: ImageStore, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(RegistryError, match="does not speak TLS") as caught:
        fetch(store, f"{registry.host}/app:one", RegistryConfig())
    assert caught.value.reason == "tls"
    assert "--insecure" in str(caught.value)
    tls = {"certificate": str(authority.cert), "key": str(authority.key)}
    # At HTTPS's own port, which nobody writes.
    with lab.registry(tmp_path / "tls", http={"tls": tls, "addr": "127.0.0.1:443"}):
        name = "127.0.0.1/app:one"
        lab.copy(f"docker://{registry.host}/app:one", f"docker://{name}")
        with pytest.raises(RegistryError, match=r"certificate of 127.0.0.1: .*certs.d/127.0.0.1/ca.crt") as caught:
            fetch(store, name, RegistryConfig(certificates=tmp_path / "certs.d"))
        assert caught.value.reason == "tls"
        directory = tmp_path / "certs.d/127.0.0.1"
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(authority.ca.read_bytes())
        assert fetch(store, name, RegistryConfig(certificates=tmp_path / "certs.d")).changed
        for number, insecure in enumerate(("tls", "any")):
            elsewhere = ImageStore(tmp_path / str(number))
            config = RegistryConfig(registries={"127.0.0.1": Configured(insecure=insecure)})
            assert fetch(elsewhere, name, config).changed
    config = RegistryConfig(registries={registry.host: Configured(insecure="any")})
    assert fetch(store, f"{registry.host}/app:one", config).changed


def test_certificates_that_cannot_be_used_are_named(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    directory = tmp_path / "certs.d" / registry.host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_text("nothing")
    with pytest.raises(BadInput, match=r"ca.crt' cannot be used"):
        fetch(store, f"{registry.host}/app:one", RegistryConfig(certificates=tmp_path / "certs.d"))
    (directory / "ca.crt").unlink()
    (directory / "own.cert").write_text("nothing")
    with pytest.raises(BadInput, match=r"own.cert' has no key"):
        fetch(store, f"{registry.host}/app:one", RegistryConfig(certificates=tmp_path / "certs.d"))


def test_a_password_opens_a_registry_and_a_wrong_one_is_not_shown(
    registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    with lab.registry(tmp_path / "basic", auth=lab.basic_auth(tmp_path / "basic")) as closed:
        name = f"{closed.host}/app:one"
        creds = f"--dest-creds={lab.USER}:{lab.PASSWORD}"
        lab.copy(f"docker://{registry.host}/app:one", f"docker://{name}", creds)
        with pytest.raises(RegistryError, match=r"HTTP 401 UNAUTHORIZED: .*no credentials for") as caught:
            fetch(store, name, plain(closed.host))
        assert caught.value.reason == "unauthorized"
        wrong = lab.auth_file(tmp_path / "wrong.json", closed.host, password="hunter2")
        with pytest.raises(RegistryError, match="wrong or not enough") as caught:
            fetch(store, name, plain(closed.host), auth=wrong)
        assert "hunter2" not in f"{caught.value!r} {caught.value}"
        right = lab.auth_file(tmp_path / "right.json", closed.host)
        assert fetch(store, name, plain(closed.host), auth=right).changed


def test_tokens_are_asked_for_once_a_scope_and_with_credentials_where_there_are_some(
    registry: Registry, store: ImageStore, authority: Authority, tmp_path: Path
) -> None:
    with TokenServer(authority) as tokens, lab.registry(tmp_path / "token", auth=tokens.auth) as closed:
        creds = f"--dest-creds={lab.USER}:{lab.PASSWORD}"
        for repository in ("public/app", "private/app"):
            lab.copy(f"docker://{registry.host}/app:one", f"docker://{closed.host}/{repository}:one", creds)
        tokens.asked.clear()
        fetch(store, f"{closed.host}/public/app:one", plain(closed.host))
        assert tokens.asked == [("GET", ["repository:public/app:pull"], False)]
        with pytest.raises(RegistryError, match="HTTP 401 UNAUTHORIZED"):
            fetch(store, f"{closed.host}/private/app:one", plain(closed.host))
        tokens.asked.clear()
        right = lab.auth_file(tmp_path / "right.json", f"{closed.host}/private")
        fetch(ImageStore(tmp_path / "2"), f"{closed.host}/private/app:one", plain(closed.host), auth=right)
        assert tokens.asked == [("GET", ["repository:private/app:pull"], True)]
        tokens.asked.clear()
        identity = lab.auth_file(tmp_path / "identity.json", closed.host, identitytoken="identity")
        tokens.failures = 2
        fetch(ImageStore(tmp_path / "3"), f"{closed.host}/private/app:one", plain(closed.host), auth=identity)
        assert tokens.asked == [("POST", ["repository:private/app:pull"], True)] * 3
        wrong = lab.auth_file(tmp_path / "wrong.json", closed.host, password="hunter2")
        with pytest.raises(RegistryError, match=f"gives no token for user '{lab.USER}': HTTP 401") as caught:
            fetch(store, f"{closed.host}/private/app:one", plain(closed.host), auth=wrong)
        assert caught.value.reason == "unauthorized"
        assert "hunter2" not in str(caught.value)


def test_mirrors_are_asked_first_and_the_registry_if_they_fail(
    registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    with lab.registry(tmp_path / "mirror") as mirror:
        lab.copy(f"docker://{registry.host}/app:many", f"docker://{mirror.host}/cache/library/app:many")
        mirrors = Configured(("127.0.0.1:1", mirror.host, f"{mirror.host}/cache"))
        plainly = plain("127.0.0.1:1", mirror.host, registries={"docker.io": mirrors})
        notes: list[str] = []
        pulled = fetch(store, "app:many", plainly, note=notes.append)
        assert pulled.image.name == "app:many"
        assert any("cannot connect to 127.0.0.1:1" in note for note in notes)
        assert any("HTTP 404" in note for note in notes)
        before = len(registry.requests())
        own = plain(registry.host, mirror.host)
        own.registries[registry.host] = Configured((mirror.host,), "http")
        fetch(store, f"{registry.host}/app:one", own)
        assert registry.requests()[before][:2] == ("GET", "/v2/app/manifests/one")


def test_a_registry_that_is_not_there_is_told_in_words(store: ImageStore) -> None:
    for name, reason, what in (
        ("127.0.0.1:1/app", "unreachable", "cannot connect to 127.0.0.1:1: connection refused"),
        ("registry.invalid/app", "name-resolution", "the name 'registry.invalid' has no address"),
        ("127.0.0.1:99999/app", "unreachable", "port"),
        (f"{'a' * 64}.io/app", "name-resolution", "can be no host's name"),
    ):
        with pytest.raises(RegistryError, match=what) as caught:
            fetch(store, name, plain("127.0.0.1:1"))
        assert caught.value.reason == reason


def test_a_layer_that_is_not_what_the_configuration_says_is_refused(
    registry: Registry, store: ImageStore, layout: Layout
) -> None:
    good = layout.image([Layer({"etc/x": b"x"})], MACHINE)
    manifest = json.loads((layout.path / "blobs/sha256" / good["digest"][7:]).read_text())
    tar = Layer({"etc/x": b"y"}, "")
    manifest["layers"] = [layout.blob(tar.tar(), f"{lab.OCI}layer.v1.tar")]
    layout.tag(layout.blob(json.dumps(manifest).encode(), good["mediaType"]), "lie")
    lab.copy(f"oci:{layout.path}:lie", f"docker://{registry.host}/app:lie")
    with pytest.raises(LayerError, match="the image's configuration says"):
        fetch(store, f"{registry.host}/app:lie", plain(registry.host))
    with pytest.raises(RawpodError):
        store.get(f"{registry.host}/app:lie")
