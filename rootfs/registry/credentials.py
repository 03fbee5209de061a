"""Who we are to a registry: Docker's config.json, containers' auth.json, and the helpers that both name.

The files, in the order of containers-auth.json(5); of the first that knows the registry, the longest key counts:

    $REGISTRY_AUTH_FILE                          alone, if it is set
    $XDG_RUNTIME_DIR/containers/auth.json        /run/containers/UID/auth.json without the variable
    $XDG_CONFIG_HOME/containers/auth.json        ~/.config
    $DOCKER_CONFIG/config.json                   ~/.docker

A helper is a program docker-credential-NAME that is told the registry's name and answers with JSON
(github.com/docker/docker-credential-helpers). Nothing here or above ever writes a secret into a message.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kernel.errors import BadInput, HostError

_HELPER_SECONDS = 30.0
_FILE_MAX = 4 << 20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DOCKER_HUB = "index.docker.io"  # the key of docker.io since there was a version 1
_DOCKER_HUB_URL = "https://index.docker.io/v1/"
_DOCKER_HUB_NAMES = frozenset({"docker.io", "registry-1.docker.io", _DOCKER_HUB})


class Credentials(NamedTuple):
    """A user and a password, or an identity token to get tokens with, or a token for the registry itself."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ...)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Keyring:
    """Credentials by registry and repository. Files are read when they are first asked for.

    `first` are entries as under `auths` in such a file, which come before the files.
    """

    def __init__(self, files: tuple[Path, ...], required: bool = False, first: Mapping[str, Any] | None = None) -> None:
        self._files = files
        self._first = first
        self._required = required
        self._read: list[_File] | None = None

    def find(self, registry: str, repository: str) -> Credentials | None:
        """Credentials for a repository, None if there are none.

        Raises BadInput for a file that cannot be read as one, HostError for a helper that fails.
        """
        if self._read is None:
            own = [_File("credentials", {"auths": self._first})] if self._first else []
            self._read = [*own, *self._load()]
        for file in self._read:
            found = file.find(registry, repository)
            if found:
                return found
        return None

    def _load(self) -> Iterator[_File]:
        for path in self._files:
            try:
                with open(path, "rb") as stream:
                    data = stream.read(_FILE_MAX + 1)
            except (FileNotFoundError, NotADirectoryError):
                if self._required:
                    raise BadInput(f"credentials file {str(path)!r} does not exist") from None
                continue
            except OSError as error:
                raise BadInput(f"cannot read {str(path)!r}: {(error.strerror or '').lower()}") from None
            yield _File(str(path), _parse(str(path), data))


def keyring(
    authfile: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    first: Mapping[str, Any] | None = None,
) -> Keyring:
    """The keyring of the user that runs this; of `authfile` alone if it is given. `first` as in Keyring."""
    named = authfile or (Path(environment["REGISTRY_AUTH_FILE"]) if environment.get("REGISTRY_AUTH_FILE") else None)
    if named:
        return Keyring((named,), required=True, first=first)
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    runtime = environment.get("XDG_RUNTIME_DIR")
    return Keyring(
        (
            Path(runtime or f"/run/containers/{os.getuid()}", *(["containers"] if runtime else []), "auth.json"),
            Path(environment.get("XDG_CONFIG_HOME") or home / ".config", "containers/auth.json"),
            Path(environment.get("DOCKER_CONFIG") or home / ".docker", "config.json"),
        ),
        first=first,
    )


class _File:
    """One file's `auths`, `credHelpers` and `credsStore`."""

    def __init__(self, path: str, data: Mapping[str, Any]) -> None:
        self._path = path
        self._auths = {_normal(key): value for key, value in _table(data, "auths", path).items()}
        self._helpers = {_normal(key): value for key, value in _table(data, "credHelpers", path).items()}
        self._store = data.get("credsStore") or ""

    def find(self, registry: str, repository: str) -> Credentials | None:
        for key in _keys(registry, repository):
            helper = self._helpers.get(key)
            if helper:
                found = self._ask(helper, key)
                if found:
                    return found
            if key in self._auths:
                found = self._entry(key)
                if found:
                    return found
        return self._ask(self._store, _host(registry)) if self._store else None

    def _entry(self, key: str) -> Credentials | None:
        entry = self._auths[key]
        if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
            raise BadInput(f"{self._path}: auths.{key}: has to be a table of texts")
        username, password = entry.get("username", ""), entry.get("password", "")
        if entry.get("auth"):
            try:
                decoded = base64.b64decode(entry["auth"], validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                decoded = ""
            username, colon, password = decoded.partition(":")
            if not colon:
                raise BadInput(f"{self._path}: auths.{key}.auth: is not base64 of USER:PASSWORD")
            password = password.strip("\0")
        found = Credentials(username, password, entry.get("identitytoken", ""), entry.get("registrytoken", ""))
        # `docker login` leaves an empty entry here where a helper keeps the rest.
        return found if any(found) else None

    def _ask(self, helper: object, key: str) -> Credentials | None:
        if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
            raise BadInput(f"{self._path}: {helper!r:.100} is not the name of a credential helper")
        program = f"docker-credential-{helper}"
        server = _DOCKER_HUB_URL if key == _DOCKER_HUB else key
        try:
            done = subprocess.run(
                [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
            )
        except FileNotFoundError:
            raise HostError(
                f"{program}, which {self._path} names, is not installed", remedy="install it or take its name out"
            ) from None
        except OSError as error:
            raise HostError(f"{program}: {(error.strerror or '').lower()}") from None
        except subprocess.TimeoutExpired:
            raise HostError(f"{program} gave no answer within {_HELPER_SECONDS:g} seconds") from None
        if done.returncode:
            if b"credentials not found" in done.stdout + done.stderr:
                return None
            raise HostError(f"{program} failed for {server} with status {done.returncode}", remedy="run it by hand")
        try:
            answer = json.loads(done.stdout)
            username, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise HostError(f"{program} gave an answer for {server} that is none of its protocol") from None
        return Credentials(identity_token=secret) if username == "<token>" else Credentials(username, secret)


def _parse(path: str, data: bytes) -> dict[str, Any]:
    if len(data) > _FILE_MAX:
        raise BadInput(f"{path}: more than {_FILE_MAX} bytes")
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise BadInput(f"{path}: is not JSON{where}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{path}: is not a JSON object")
    return found


def _table(data: Mapping[str, Any], key: str, path: str) -> dict[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise BadInput(f"{path}: {key}: has to be a table")
    return value


def _keys(registry: str, repository: str) -> Iterator[str]:
    """What an entry for the repository may be called, the longest first."""
    key = f"{_host(registry)}/{repository}"
    while key:
        yield key
        key = key.rpartition("/")[0]


def _normal(key: str) -> str:
    """A file's key as we look it up: old ones are addresses, of which the host alone counts."""
    stripped = key.removeprefix("https://").removeprefix("http://")
    if stripped != key:
        stripped = stripped.partition("/")[0]
    host, slash, rest = stripped.partition("/")
    return _host(host) + slash + rest


def _host(registry: str) -> str:
    return _DOCKER_HUB if registry in _DOCKER_HUB_NAMES else registry
