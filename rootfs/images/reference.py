"""Image references as Docker reads and writes them: `nginx`, `ghcr.io/owner/app:1.2`, `localhost:5000/app@sha256:…`.

    reference   = name [ ":" tag ] [ "@" digest ]
    name        = [ registry "/" ] component *( "/" component )
    registry    = ( host name | IPv4 address | "[" IPv6 address "]" ) [ ":" port ]
    component   = alnum *( separator alnum )           alnum: a-z 0-9, one or more
    separator   = "." | "_" | "__" | "-" …             any number of dashes
    tag         = [A-Za-z0-9_] and at most 127 more of [A-Za-z0-9_.-]
    digest      = algorithm ":" lower-case hexadecimal digits, as many as the algorithm gives

The grammar and the defaults are those of github.com/distribution/reference. What stands before the first "/" is a
registry if it holds a "." or ":" or a capital letter, or is `localhost`; it is docker.io otherwise, where a name of one
component belongs to `library/`. One thing is stricter: a first component with a "." that no host name could have, as
in `a__b.c/d`, is refused, where Docker's parser finds an empty registry.
"""

from __future__ import annotations

from kernel.errors import BadInput
from kernel.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_REPOSITORY = 255
"""Characters of a repository's name, without the registry."""
MAX_TAG = 128

DIGEST_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
"""Hexadecimal digits of a digest, by algorithm (image-spec, descriptor.md)."""

_LEGACY_REGISTRY = "index.docker.io"
_OFFICIAL = "library/"
_DIGITS = frozenset("0123456789")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz")
_UPPER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ALNUM = _LOWER | _DIGITS
_HEX = frozenset("0123456789abcdef")
_HOST = _ALNUM | _UPPER
_TAG_FIRST = _HOST | {"_"}
_TAG = _TAG_FIRST | {".", "-"}


class BadReference(BadInput):
    """An image reference breaks the grammar. `position` counts characters from 0; the message counts them from 1."""

    def __init__(self, text: str, position: int, what: str) -> None:
        super().__init__(
            f"image reference {_quoted(text)}: character {position + 1}: {what}",
            remedy="[REGISTRY[:PORT]/]NAME[:TAG][@sha256:DIGEST], names in lower case",
        )
        self.position = position


class Reference(Record):
    """An image's full name. `digest` as in `sha256:…`; without one there is a tag."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def canonical(self) -> str:
        """All of it, as in docker.io/library/nginx:latest."""
        return f"{self.registry}/{self.repository}{self._suffix}"

    @property
    def familiar(self) -> str:
        """As Docker shows it: without docker.io and library/ where the short form still means the same."""
        return self._short_name + self._suffix

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def _short_name(self) -> str:
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        official = self.repository.removeprefix(_OFFICIAL)
        if official != self.repository and "/" not in official:
            return self.name if _is_identifier(official) else official
        # Docker shortens docker.io/a.b/c to a.b/c, which names another registry.
        return self.name if names_registry(self.repository) else self.repository


def parse(text: str) -> Reference:
    """The reference that `text` stands for, with defaults filled in. Raises BadReference, a BadInput."""
    if not text:
        raise BadReference(text, 0, "the name is missing")
    if _is_identifier(text):
        raise BadReference(text, 0, "64 hexadecimal digits are an image's id and cannot be its name")
    start = 0
    registry = DEFAULT_REGISTRY
    if names_registry(text):
        if "://" in text:
            raise BadReference(text, text.index("://") + 1, "http://, https:// and the like are left out")
        start = _scan_registry(text) + 1
        registry = text[: start - 1]
        if registry == _LEGACY_REGISTRY:
            registry = DEFAULT_REGISTRY
    end = _scan_repository(text, start)
    repository = text[start:end]
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    if len(repository) > MAX_REPOSITORY:
        limit = start + MAX_REPOSITORY - (len(repository) - (end - start))
        raise BadReference(text, limit, f"a repository's name has at most {MAX_REPOSITORY} characters")
    tag = digest = None
    if text[end : end + 1] == ":":
        start, end = end + 1, _scan_tag(text, end + 1)
        tag = text[start:end]
    if text[end : end + 1] == "@":
        digest = text[end + 1 :]
        _check_digest(text, end + 1)
    elif end < len(text):
        allowed = "a tag or a digest" if tag is None else "a digest"
        _unexpected(text, end, f"only {allowed} can follow")
    if tag is None and digest is None:
        tag = DEFAULT_TAG
    return Reference(registry, repository, tag, digest)


def names_registry(text: str) -> bool:
    """Whether `text` begins with a registry, by Docker's rule. False for what is short for docker.io."""
    first, slash, _ = text.partition("/")
    return bool(slash) and (first == "localhost" or "." in first or ":" in first or first.lower() != first)


def is_digest(text: str) -> bool:
    """Whether `text` is a digest of a known algorithm."""
    algorithm, _, digits = text.partition(":")
    return len(digits) == DIGEST_DIGITS.get(algorithm) and _HEX.issuperset(digits)


def _is_identifier(text: str) -> bool:
    return len(text) == 64 and _HEX.issuperset(text)


def _scan_registry(text: str) -> int:
    """The position of the "/" after the registry."""
    at = _scan_ipv6(text) if text.startswith("[") else _scan_host(text)
    if text[at] == ":":
        port, at = at + 1, at + 1
        while text[at] in _DIGITS:
            at += 1
        if at == port or text[at] != "/":
            _unexpected(text, at, "a port is a number")
    if text[at] != "/":
        _unexpected(text, at, "a registry is a host name or address and perhaps a port")
    return at


def _scan_host(text: str) -> int:
    at = 0
    while True:
        if text[at] not in _HOST:
            _unexpected(text, at, "a part of a host name begins with a letter or digit")
        while text[at] in _HOST or text[at] == "-":
            at += 1
        if text[at - 1] == "-":
            _unexpected(text, at, "a part of a host name ends with a letter or digit")
        if text[at] != ".":
            return at
        at += 1


def _scan_ipv6(text: str) -> int:
    at = 1
    while text[at] in _HEX or text[at] in "ABCDEF:":
        at += 1
    if at == 1 or text[at] != "]":
        _unexpected(text, at, "an IPv6 address consists of hexadecimal digits and colons and ends with ']'")
    return at + 1


def _scan_repository(text: str, start: int) -> int:
    """The position after the repository's name."""
    at = start
    while True:
        at = _scan_component(text, at)
        if text[at : at + 1] != "/":
            return at
        at += 1


def _scan_component(text: str, at: int) -> int:
    length = len(text)
    while True:
        if at == length or text[at] not in _ALNUM:
            _unexpected(text, at, "a lower-case letter or digit is expected")
        while at < length and text[at] in _ALNUM:
            at += 1
        if text.startswith("-", at):
            while text.startswith("-", at):
                at += 1
        elif text.startswith("__", at):
            at += 2
        elif at < length and text[at] in "._":
            at += 1
        else:
            return at


def _scan_tag(text: str, start: int) -> int:
    length = len(text)
    if start == length or text[start] not in _TAG_FIRST:
        _unexpected(text, start, "a tag begins with a letter, digit or underscore")
    at = start
    while at < length and text[at] in _TAG:
        if at - start == MAX_TAG:
            raise BadReference(text, at, f"a tag has at most {MAX_TAG} characters")
        at += 1
    return at


def _check_digest(text: str, start: int) -> None:
    colon = text.find(":", start)
    algorithm = text[start : colon if colon >= 0 else len(text)]
    digits = DIGEST_DIGITS.get(algorithm)
    if digits is None or colon < 0:
        known = ", ".join(DIGEST_DIGITS)
        what = f"a digest begins with its algorithm and a colon ({known}), not {_quoted(algorithm)}"
        raise BadReference(text, start, what)
    at = colon + 1
    while at < len(text) and text[at] in _HEX and at - colon <= digits:
        at += 1
    if at != len(text) or at - colon - 1 != digits:
        _unexpected(text, at, f"a {algorithm} digest has {digits} digits of 0-9 a-f")


def _unexpected(text: str, at: int, expected: str) -> NoReturn:
    found = f"{text[at]!r} is not expected" if at < len(text) else "the end is not expected"
    if at < len(text) and text[at] in _UPPER:
        found = f"{text[at]!r} is a capital letter"
    raise BadReference(text, at, f"{found}: {expected}")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 300 else text[:297] + "...")
