"""Credentials: which file, which entry, which helper; and that nothing secret is ever shown."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import BadInput, HostError, RawpodError
from rootfs.registry.credentials import Credentials, Keyring, keyring


def entry(user: str, password: str = "secret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def file(path: Path, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def user(found: Credentials | None) -> str | None:
    return found.username if found else None


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on PATH where `docker-credential-test` writes down what it is asked and runs `answer`."""
    program = tmp_path / "bin/docker-credential-test"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncd {tmp_path} || exit 9\necho "$1 $(cat)" >>asked\n. ./answer\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_the_longest_key_counts(tmp_path: Path) -> None:
    auths = {"r.io": entry("all"), "r.io/a": entry("a"), "r.io/a/b": entry("ab"), "r.io:5000": entry("port")}
    ring = Keyring((file(tmp_path / "auth.json", auths=auths),))
    found = [ring.find("r.io", name) for name in ("a/b/c", "a/b", "a/bc", "ab", "x")]
    assert [user(one) for one in found] == ["ab", "ab", "a", "all", "all"]
    assert user(ring.find("r.io:5000", "a")) == "port"
    assert ring.find("s.io", "a") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_has_several_names(tmp_path: Path, key: str) -> None:
    assert user(Keyring((file(tmp_path / "c", auths={key: entry("u")}),)).find("docker.io", "library/x")) == "u"


def test_old_keys_are_addresses(tmp_path: Path) -> None:
    ring = Keyring((file(tmp_path / "c", auths={"https://r.io:1/v1/": entry("u"), "http://s.io": entry("v")}),))
    assert (user(ring.find("r.io:1", "a")), user(ring.find("s.io", "a"))) == ("u", "v")


def test_the_first_file_that_knows_the_registry_counts(tmp_path: Path) -> None:
    one = file(tmp_path / "1", auths={"r.io": entry("one")})
    two = file(tmp_path / "2", auths={"r.io/a": entry("two"), "s.io": entry("two")})
    ring = Keyring((tmp_path / "missing", one, two))
    assert (user(ring.find("r.io", "a")), user(ring.find("s.io", "a"))) == ("one", "two")


def test_files_are_where_docker_and_containers_keep_them(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home")}
    file(tmp_path / "home/.docker/config.json", auths={"r.io": entry("docker")})
    assert user(keyring(environment=home).find("r.io", "a")) == "docker"
    file(tmp_path / "home/.config/containers/auth.json", auths={"r.io": entry("containers")})
    assert user(keyring(environment=home).find("r.io", "a")) == "containers"
    file(tmp_path / "run/containers/auth.json", auths={"r.io": entry("run")})
    running = home | {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert user(keyring(environment=running).find("r.io", "a")) == "run"
    named = running | {"REGISTRY_AUTH_FILE": str(file(tmp_path / "named.json", auths={}))}
    assert keyring(environment=named).find("r.io", "a") is None
    elsewhere = {"HOME": "/nowhere", "DOCKER_CONFIG": str(tmp_path / "home/.docker")}
    assert user(keyring(environment=elsewhere).find("r.io", "a")) == "docker"
    given = file(tmp_path / "given.json", auths={"r.io": entry("given")})
    assert user(keyring(given, environment=named).find("r.io", "a")) == "given"


def test_a_named_file_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        keyring(environment={"REGISTRY_AUTH_FILE": str(tmp_path / "none")}).find("r.io", "a")


def test_all_kinds_of_entries_are_read(tmp_path: Path) -> None:
    auths = {
        "a.io": {"username": "u", "password": "p"},
        "b.io": {"auth": base64.b64encode(b"u:p:q\0\0").decode()},
        "c.io": entry("00000000-0000-0000-0000-000000000000", "") | {"identitytoken": "t"},
        "d.io": {"registrytoken": "r"},
        "e.io": {},
    }
    ring = Keyring((file(tmp_path / "c", auths=auths),))
    assert ring.find("a.io", "x") == Credentials("u", "p")
    assert ring.find("b.io", "x") == Credentials("u", "p:q")
    found = ring.find("c.io", "x")
    assert found
    assert found.identity_token == "t"
    assert ring.find("d.io", "x") == Credentials(registry_token="r")
    assert ring.find("e.io", "x") is None


def test_a_helper_is_asked_for_its_registries_and_the_store_for_all_others(helper: Path) -> None:
    (helper / "answer").write_text("""echo '{"ServerURL": "x", "Username": "h", "Secret": "s"}'""")
    one = Keyring((file(helper / "c", credHelpers={"r.io": "test"}, auths={"s.io": entry("file")}),))
    assert one.find("r.io", "a/b") == Credentials("h", "s")
    assert user(one.find("s.io", "a")) == "file"
    store = Keyring((file(helper / "d", credsStore="test", auths={"https://index.docker.io/v1/": {}}),))
    assert user(store.find("docker.io", "a")) == "h"
    assert user(store.find("t.io:5000", "a")) == "h"
    assert (helper / "asked").read_text().splitlines() == [
        "get r.io",
        "get https://index.docker.io/v1/",
        "get t.io:5000",
    ]


def test_a_helper_may_give_an_identity_token(helper: Path) -> None:
    (helper / "answer").write_text("""echo '{"Username": "<token>", "Secret": "s"}'""")
    assert Keyring((file(helper / "c", credsStore="test"),)).find("r.io", "a") == Credentials(identity_token="s")


def test_a_helper_that_knows_nothing_is_no_error(helper: Path) -> None:
    (helper / "answer").write_text("echo credentials not found in native keychain; exit 1")
    assert Keyring((file(helper / "c", credsStore="test"),)).find("r.io", "a") is None


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("echo hunter2; exit 1", "failed for r.io with status 1"),
        ("echo hunter2", "none of its protocol"),
        ("""echo '{"Username": "hunter2"}'""", "none of its protocol"),
        ("echo '[\"hunter2\"]'", "none of its protocol"),
    ],
)
def test_a_helper_that_fails_is_named_and_not_quoted(helper: Path, answer: str, what: str) -> None:
    (helper / "answer").write_text(answer)
    with pytest.raises(HostError, match=what) as caught:
        Keyring((file(helper / "c", credsStore="test"),)).find("r.io", "a")
    assert "docker-credential-test" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["../bin/sh", "a/b", "", "-x", "a b", 3])
def test_a_helper_has_a_plain_name(tmp_path: Path, name: object) -> None:
    with pytest.raises(BadInput, match="not the name of a credential helper"):
        Keyring((file(tmp_path / "c", credHelpers={"r.io": name or "\0"}),)).find("r.io", "a")


def test_a_helper_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"docker-credential-absent, which .* names, is not installed"):
        Keyring((file(tmp_path / "c", credsStore="absent"),)).find("r.io", "a")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"auths": {"r.io": {"auth": "hunter2"', "is not JSON at line 1"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"auths": []}', ""),
        ('{"auths": "hunter2"}', "auths: has to be a table"),
        ('{"auths": {"r.io": "hunter2"}}', "auths.r.io: has to be a table of texts"),
        ('{"auths": {"r.io": {"auth": "hunter2!"}}}', "auths.r.io.auth: is not base64 of USER:PASSWORD"),
        ('{"auths": {"r.io": {"auth": "aHVudGVyMg=="}}}', "auths.r.io.auth: is not base64 of USER:PASSWORD"),
    ],
)
def test_a_malformed_file_is_named_and_not_quoted(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    if not what:
        assert Keyring((path,)).find("r.io", "a") is None
        return
    with pytest.raises(RawpodError, match=what) as caught:
        Keyring((path,)).find("r.io", "a")
    assert str(path) in str(caught.value)
    assert "unter2" not in str(caught.value)


def test_what_is_printed_of_credentials_is_the_user() -> None:
    shown = f"{Credentials('u', 'hunter2', 'hunter2', 'hunter2')!r} {Credentials('u', 'hunter2')}"
    assert "hunter2" not in shown
