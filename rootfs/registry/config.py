"""The registries' configuration: short names, mirrors, and which registries may be spoken to without TLS.

default-registry = "docker.io"             where a name without a registry is looked for
certificates = "/etc/rawpod/certs.d"       HOST[:PORT]/*.crt are authorities, *.cert and *.key our own, as Docker's

[aliases]                                  what a short name stands for, without tag
nginx = "registry.example.com/base/nginx"

[registries."docker.io"]
mirrors = ["mirror.example.com", "cache.example.com:5000/hub"]     asked in this order, then the registry itself

[registries."cache.example.com:5000"]
insecure = "http"                          or "tls": unverified certificates; true: TLS unverified, else HTTP
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, NamedTuple

from kernel.errors import BadInput
from rootfs.images.reference import DEFAULT_REGISTRY, BadReference, Reference, names_registry, parse

DEFAULT_PATH = Path("/etc/rawpod/registries.toml")

_DOCKER_HUB = "registry-1.docker.io"  # docker.io itself serves people
_INSECURE: dict[object, str] = {False: "", True: "any", "http": "http", "tls": "tls"}
_TOP = ("default-registry", "certificates", "aliases", "registries")
_REGISTRY = ("mirrors", "insecure")


class Endpoint(NamedTuple):
    """A place where a registry's images are had. `insecure` is "", "http", "tls" (unverified) or "any" of the two.

    `prefix` stands before a repository's name there; `name` is what credentials are looked up by.
    """

    name: str
    host: str
    prefix: str = ""
    insecure: str = ""
    mirror: bool = False

    def repository(self, name: str) -> str:
        """The repository's name at this place."""
        return f"{self.prefix}/{name}" if self.prefix else name


class Registry(NamedTuple):
    """What is configured for one registry."""

    mirrors: tuple[str, ...] = ()
    insecure: str = ""


class RegistryConfig(NamedTuple):
    """All that registries.toml says."""

    default: str = DEFAULT_REGISTRY
    aliases: dict[str, str] = {}
    registries: dict[str, Registry] = {}
    certificates: Path = DEFAULT_PATH.parent / "certs.d"

    def resolve(self, text: str) -> Reference:
        """The image that a user means by `text`: parse() with aliases and the default registry. Raises BadReference."""
        asked = parse(text)
        if names_registry(text):
            return asked
        cut = min((at for at in (text.find(":"), text.find("@")) if at >= 0), default=len(text))
        name, rest = text[:cut], text[cut:]
        if name in self.aliases:
            return parse(self.aliases[name] + rest)
        return asked if self.default == DEFAULT_REGISTRY else parse(f"{self.default}/{text}")

    def endpoints(self, registry: str, *, insecure: bool = False) -> list[Endpoint]:
        """Where to get the images of `registry`: its mirrors, then itself. `insecure` is what --insecure asks for."""
        found = []
        for mirror in self.registries.get(registry, Registry()).mirrors:
            host, _, prefix = mirror.partition("/")
            found.append(Endpoint(host, host, prefix, self._insecure(host), mirror=True))
        return [*found, self.origin(registry, insecure=insecure)]

    def origin(self, registry: str, *, insecure: bool = False) -> Endpoint:
        """The registry itself: what is pushed goes there."""
        host = _DOCKER_HUB if registry == DEFAULT_REGISTRY else registry
        return Endpoint(registry, host, insecure=self._insecure(registry) or ("any" if insecure else ""))

    def _insecure(self, registry: str) -> str:
        return self.registries.get(registry, Registry()).insecure


def load(path: Path = DEFAULT_PATH, *, required: bool = False) -> RegistryConfig:
    """The configuration in `path`; the defaults if there is no such file and it is not `required`.

    Raises BadInput, one line a fault.
    """
    import tomllib

    usual = RegistryConfig(certificates=path.parent / "certs.d")
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if required:
            raise BadInput(f"cannot read {str(path)!r}: no such file") from None
        return usual
    except OSError as error:
        raise BadInput(f"cannot read {str(path)!r}: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # "Expected ... (at line 3, column 7)"
        raise BadInput(f"{path}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    return _Reader(str(path)).config(data, usual)


class _Reader:
    """Reads the tables and gathers every fault."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._faults: list[str] = []

    def config(self, data: dict[str, Any], usual: RegistryConfig) -> RegistryConfig:
        self._known(data, _TOP, "")
        default = self._text(data, "default-registry", usual.default)
        if not _is_registry(default):
            self._fault("default-registry", f"{default[:200]!r} is not HOST[:PORT]")
        certificates = Path(self._text(data, "certificates", str(usual.certificates)))
        if not certificates.is_absolute():
            self._fault("certificates", f"{str(certificates)!r} is not an absolute path")
        aliases = {name: self._alias(name, value) for name, value in self._table(data, "aliases", "aliases").items()}
        registries = {
            name: self._registry(name, value) for name, value in self._table(data, "registries", "registries").items()
        }
        if self._faults:
            raise BadInput("\n".join(self._faults))
        return RegistryConfig(default, aliases, registries, certificates)

    def _alias(self, name: str, value: object) -> str:
        field = f"aliases.{name}"
        for text, what in ((name, "a short name"), (value, "a name with its registry")):
            try:
                reference = parse(text) if isinstance(text, str) else None
            except BadReference as error:
                self._fault(field, str(error))
                continue
            short = what == "a short name"
            if not isinstance(text, str) or reference is None or names_registry(text) == short or _has_suffix(text):
                self._fault(field, f"{text!r:.200} is not {what}, without tag and digest")
        return str(value)

    def _registry(self, name: str, value: object) -> Registry:
        field = f'registries."{name}"'
        if not _is_registry(name):
            self._fault(field, f"{name[:200]!r} is not HOST[:PORT]")
        if name in (_DOCKER_HUB, "index.docker.io"):
            self._fault(field, f"in images' names that is {DEFAULT_REGISTRY}")
        if not isinstance(value, dict):
            self._fault(field, "has to be a table")
            return Registry()
        self._known(value, _REGISTRY, field + ".")
        mirrors = value.get("mirrors", [])
        if not isinstance(mirrors, list) or not all(isinstance(mirror, str) for mirror in mirrors):
            self._fault(f"{field}.mirrors", "has to be a list of texts")
            mirrors = []
        for number, mirror in enumerate(mirrors):
            if not _is_mirror(mirror):
                self._fault(f"{field}.mirrors[{number}]", f"{mirror[:200]!r} is not HOST[:PORT][/PREFIX]")
        insecure = value.get("insecure", False)
        if not isinstance(insecure, bool | str) or insecure not in _INSECURE:
            self._fault(f"{field}.insecure", f'{insecure!r:.200} is not false, true, "http" or "tls"')
            insecure = False
        return Registry(tuple(mirrors), _INSECURE[insecure])

    def _table(self, data: dict[str, Any], key: str, field: str) -> dict[str, Any]:
        value = data.get(key, {})
        if isinstance(value, dict):
            return value
        self._fault(field, "has to be a table")
        return {}

    def _text(self, data: dict[str, Any], key: str, default: str) -> str:
        value = data.get(key, default)
        if isinstance(value, str):
            return value
        self._fault(key, "has to be a text")
        return default

    def _known(self, table: dict[str, Any], names: tuple[str, ...], field: str) -> None:
        for key in table:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
                self._fault(f"{field}{key[:100]}", f"unknown key ({hint})")

    def _fault(self, field: str, what: str) -> None:
        self._faults.append(f"{self._path}: {field}: {what}")


def _has_suffix(text: str) -> bool:
    return ":" in text.rpartition("/")[2] or "@" in text


def _is_registry(text: str) -> bool:
    """By the grammar of references, where a name without dot and port is a registry in the configuration alone."""
    return "/" not in text and _is_mirror(text)


def _is_mirror(text: str) -> bool:
    host, _, _ = text.partition("/")
    # What makes a host of `host` in a reference is a port, a dot or a capital; a port does not hurt a name of any kind.
    candidate = text if names_registry(f"{host}/x") else f"{host}:1{text[len(host) :]}"
    try:
        return not _has_suffix(f"{candidate}/x") and parse(f"{candidate}/x").registry != ""
    except BadReference:
        return False
