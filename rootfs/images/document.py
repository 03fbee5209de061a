"""JSON documents that come with an image, read so that two readers cannot understand one differently.

Go's decoder, which other runtimes use, takes the last of two equal keys and does not look at case; others do otherwise.
What they would disagree about is refused here, and every fault names its field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from kernel.errors import RawpodError

# A registry takes no manifest over 4 MiB (distribution), containers/image reads no larger manifest or config.
DOCUMENT_MAX = 4 << 20

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class ImageError(RawpodError):
    """An image, or a document of one, is malformed or contradicts itself. `field` is the path of what is wrong."""

    def __init__(self, document: str, reason: str, *, field: str = "", remedy: str | None = None) -> None:
        super().__init__(f"{document}: {field}: {reason}" if field else f"{document}: {reason}", remedy=remedy)
        self.document = document
        self.reason = reason
        self.field = field


def check_digest(digest: object, document: str, field: str = "") -> str:
    """`digest` itself, which becomes the name of a file. Raises ImageError unless it is sha256: and 64 hex digits."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        reason = f"{_shown(digest)} is not a sha256 digest"
        raise ImageError(document, reason, field=field, remedy="sha256: and 64 digits of 0-9 a-f")
    return digest


def parse(data: bytes, document: str) -> Fields:
    """The object that `data` is. Raises ImageError: not JSON, a key twice, too large, too deep."""
    value = _decode(data, document)
    if not isinstance(value, dict):
        raise ImageError(document, f"{_shown(value)} is not an object")
    return Fields(value, document)


def parse_list(data: bytes, document: str) -> list[Fields]:
    """The objects in the array that `data` is. Raises ImageError as parse() does."""
    return Fields({"": _decode(data, document)}, document).objects("")


def _decode(data: bytes, document: str) -> Any:
    if len(data) > DOCUMENT_MAX:
        raise ImageError(document, f"{len(data)} bytes are over the limit of {DOCUMENT_MAX}")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) < len(found):
            names = [name for name, _ in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise ImageError(document, f"key {_shown(twice)} is there twice")
        return made

    def constant(text: str) -> NoReturn:
        raise ImageError(document, f"{text} is not JSON")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise ImageError(document, f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        reason = f"not JSON at line {error.lineno} column {error.colno}: {error.msg.lower()}"
        raise ImageError(document, reason) from None
    except RecursionError:
        raise ImageError(document, "nested too deeply") from None
    except ValueError as error:  # Python reads no integer of more than 4,300 digits
        raise ImageError(document, f"not JSON: {str(error).partition(';')[0].lower()}") from None


class Fields:
    """An object of a document. A field that is null is absent, as image-spec has it for optional ones."""

    def __init__(self, value: dict[str, Any], document: str, path: str = "") -> None:
        self.value = value
        self.document = document
        self.path = path

    def fail(self, key: str, reason: str, remedy: str | None = None) -> NoReturn:
        """Raise ImageError about one field."""
        raise ImageError(self.document, reason, field=self.path_of(key), remedy=remedy)

    def path_of(self, key: str) -> str:
        """The field's path in the document, `layers[0].size`."""
        return f"{self.path}.{key}" if self.path else key

    def known(self, *keys: str) -> None:
        """Refuse what differs from one of these names by case alone: Go's decoder would take it for the same."""
        exact = {key.casefold(): key for key in keys}
        for key in self.value:
            meant = exact.get(key.casefold())
            if meant is not None and meant != key:
                self.fail(key, f"differs from {meant!r} by case alone")

    def has(self, key: str) -> bool:
        """Whether the field is there, and not null."""
        return self.value.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """A string without NUL; it has to be there unless there is a default."""
        value = self.value.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.fail(key, "is missing")
        if not isinstance(value, str):
            self.fail(key, f"{_shown(value)} is not a string")
        return self._clean(value, key)

    def integer(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """An integer from `least` to 2^63 - 1; it has to be there unless there is a default."""
        value = self.value.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.fail(key, "is missing")
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(key, f"{_shown(value)} is not an integer")
        if not least <= value < 1 << 63:
            self.fail(key, f"{_shown(value)} is out of range", f"{least} to 2^63 - 1")
        return value

    def flag(self, key: str) -> bool:
        """A boolean, false if absent."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, bool):
            self.fail(key, f"{_shown(value)} is not true or false")
        return bool(value)

    def digest(self, key: str) -> str:
        """A sha256 digest."""
        if not self.has(key):
            self.fail(key, "is missing")
        return check_digest(self.value[key], self.document, self.path_of(key))

    def strings(self, key: str) -> tuple[str, ...]:
        """An array of strings, empty if absent."""
        return tuple(
            self._clean(item, where) if isinstance(item, str) else self.fail(where, f"{_shown(item)} is not a string")
            for where, item in self._items(key)
        )

    def object(self, key: str) -> Fields:
        """An object, empty if absent."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, dict):
            self.fail(key, f"{_shown(value)} is not an object")
        return Fields(value or {}, self.document, self.path_of(key))

    def objects(self, key: str) -> list[Fields]:
        """An array of objects, empty if absent."""
        return [
            Fields(item, self.document, self.path_of(where))
            if isinstance(item, dict)
            else self.fail(where, f"{_shown(item)} is not an object")
            for where, item in self._items(key)
        ]

    def mapping(self, key: str) -> dict[str, str]:
        """An object whose values are strings, such as annotations and labels."""
        found = self.object(key)
        return {found._clean(name, name): found.text(name) for name in found.value}

    def names(self, key: str) -> tuple[str, ...]:
        """The keys of an object whose values say nothing, as Go writes a set."""
        found = self.object(key)
        return tuple(found._clean(name, name) for name in found.value)

    def _items(self, key: str) -> Iterator[tuple[str, Any]]:
        value = self.value.get(key)
        if value is not None and not isinstance(value, list):
            self.fail(key, f"{_shown(value)} is not an array")
        for number, item in enumerate(value or ()):
            yield f"{key}[{number}]", item

    def _clean(self, value: str, key: str) -> str:
        if "\0" in value:
            self.fail(key, f"{_shown(value)} holds a NUL")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(key, f"{_shown(value)} holds half of a surrogate pair")
        return value


def _shown(value: object) -> str:
    """The value as a message quotes it; ascii() since it comes from strangers and goes to a terminal."""
    text = (
        ascii(value) if not isinstance(value, (dict, list)) else ("an object" if isinstance(value, dict) else "a list")
    )
    return text if len(text) <= 100 else text[:97] + "..."
