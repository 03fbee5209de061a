"""registries.toml: short names, mirrors, insecure registries, and what is refused in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.errors import BadInput
from rootfs.registry.config import Endpoint, load


def written(directory: Path, text: str) -> Path:
    path = directory / "registries.toml"
    path.write_text(text)
    return path


def faults(directory: Path, text: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load(written(directory, text))
    return str(caught.value).splitlines()


def test_without_a_file_docker_hub_is_asked() -> None:
    config = load(Path("/nowhere/registries.toml"))
    assert config.resolve("nginx").canonical == "docker.io/library/nginx:latest"
    assert config.endpoints("docker.io") == [Endpoint("docker.io", "registry-1.docker.io")]
    assert config.certificates == Path("/nowhere/certs.d")


def test_a_file_that_was_asked_for_has_to_be_there() -> None:
    with pytest.raises(BadInput, match="no such file"):
        load(Path("/nowhere/registries.toml"), required=True)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nginx", "registry.example.com/base/nginx:latest"),
        ("nginx:1.2", "registry.example.com/base/nginx:1.2"),
        ("nginx@sha256:" + "0" * 64, "registry.example.com/base/nginx@sha256:" + "0" * 64),
        ("owner/app:2", "localhost:5000/a:2"),
        ("other", "my.registry:8000/other:latest"),
        ("owner/other:1", "my.registry:8000/owner/other:1"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/nginx", "localhost/nginx:latest"),
    ],
)
def test_short_names_are_looked_up(tmp_path: Path, text: str, canonical: str) -> None:
    config = load(
        written(
            tmp_path,
            """
            default-registry = "my.registry:8000"
            [aliases]
            nginx = "registry.example.com/base/nginx"
            "owner/app" = "localhost:5000/a"
            """,
        )
    )
    assert config.resolve(text).canonical == canonical


def test_mirrors_come_first_and_only_what_is_named_is_insecure(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            """
            certificates = "/somewhere"
            [registries."docker.io"]
            mirrors = ["mirror", "cache.example.com:5000/hub/a"]
            [registries.mirror]
            insecure = "http"
            [registries."odd:1"]
            insecure = "tls"
            [registries."any:1"]
            insecure = true
            [registries."no:1"]
            insecure = false
            """,
        )
    )
    assert config.endpoints("docker.io") == [
        Endpoint("mirror", "mirror", "", "http", mirror=True),
        Endpoint("cache.example.com:5000", "cache.example.com:5000", "hub/a", "", mirror=True),
        Endpoint("docker.io", "registry-1.docker.io"),
    ]
    assert config.endpoints("docker.io")[1].repository("library/nginx") == "hub/a/library/nginx"
    assert [config.origin(name).insecure for name in ("odd:1", "any:1", "no:1", "127.0.0.1:5000")] == [
        *("tls", "any", "", ""),
    ]
    assert config.origin("127.0.0.1:5000", insecure=True).insecure == "any"
    assert config.origin("odd:1", insecure=True).insecure == "tls"
    assert config.endpoints("docker.io", insecure=True)[1].insecure == ""
    assert config.certificates == Path("/somewhere")


def test_every_fault_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "registries.toml"
    assert faults(
        tmp_path,
        """
        default-registry = "a/b"
        certificates = "certs"
        alliases = {}
        [aliases]
        "x:1" = "h.io/a"
        y = "nginx"
        z = 3
        [registries."h.io"]
        mirror = []
        mirrors = ["https://h.io", "ok", 'a b']
        insecure = "yes"
        [registries."a/b"]
        [registries."index.docker.io"]
        [registries.one]
        mirrors = "x"
        insecure = 1
        """,
    ) == [
        f"{path}: alliases: unknown key (did you mean 'aliases'?)",
        f"{path}: default-registry: 'a/b' is not HOST[:PORT]",
        f"{path}: certificates: 'certs' is not an absolute path",
        f"{path}: aliases.x:1: 'x:1' is not a short name, without tag and digest",
        f"{path}: aliases.y: 'nginx' is not a name with its registry, without tag and digest",
        f"{path}: aliases.z: 3 is not a name with its registry, without tag and digest",
        f"{path}: registries.\"h.io\".mirror: unknown key (did you mean 'mirrors'?)",
        f"{path}: registries.\"h.io\".mirrors[0]: 'https://h.io' is not HOST[:PORT][/PREFIX]",
        f"{path}: registries.\"h.io\".mirrors[2]: 'a b' is not HOST[:PORT][/PREFIX]",
        f'{path}: registries."h.io".insecure: \'yes\' is not false, true, "http" or "tls"',
        f"{path}: registries.\"a/b\": 'a/b' is not HOST[:PORT]",
        f'{path}: registries."index.docker.io": in images\' names that is docker.io',
        f'{path}: registries."one".mirrors: has to be a list of texts',
        f'{path}: registries."one".insecure: 1 is not false, true, "http" or "tls"',
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("default-registry = \n", "line 1"),
        ("a = 1\na = 2\n", "line 2"),
        ('aliases = "x"', "aliases: has to be a table"),
        ("registries = 1", "registries: has to be a table"),
        ("registries = {a = 1}", "has to be a table"),
        ("default-registry = 1", "default-registry: has to be a text"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str, what: str) -> None:
    assert what in "\n".join(faults(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "registries.toml"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(BadInput, match="not UTF-8 at byte 5"):
        load(path)
