"""From JSON to the types of the OCI specifications and back, as their annotations say.

Unknown properties are ignored, `null` counts as absent (encoders in Go write it for an empty list), and a value of the
wrong type is an error with its JSON path. When written, properties at their default are left out.
"""

from __future__ import annotations

import sys

from kernel.errors import BadInput
from kernel.record import Struct
from runtime import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, TypeVar

    S = TypeVar("S", bound="SpecStruct")
    Decoder = Callable[[Any, str], Any]


OCI_VERSION = "1.2.0"
"""The version of the runtime specification."""


class SpecStruct(Struct):
    """A JSON object; properties are the fields' names in camel case, except for those in `_names`."""

    _names: ClassVar[dict[str, str]] = {}

    @classmethod
    def property_of(cls, field: str) -> str:
        """The JSON property of a field."""
        if field in cls._names:
            return cls._names[field]
        head, *rest = field.split("_")
        return head + "".join(word[:1].upper() + word[1:] for word in rest)


class WrongType(ValueError):
    """A value that the specification gives another type."""


def loads(kind: type[S], data: bytes, what: str) -> S:
    """Decode `what` ("config.json") as `kind`. Raises BadInput when it is no JSON or a property has the wrong type."""
    try:
        return struct(kind, jsontext.loads(data))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{what}: {error}", remedy="see the OCI runtime specification") from error


def dumps(value: SpecStruct) -> bytes:
    """Encode as JSON, properties at their default left out."""
    return jsontext.dumps(plain(value))


def struct(kind: type[S], value: object, path: str = "$") -> S:
    """The mapping `value` as `kind`. Raises WrongType with the JSON path."""
    if type(value) is not dict:
        raise _wrong("object", value, path)
    decoders = _decoders.get(kind) or _decoders.setdefault(kind, _compile(kind))
    fields = {}
    for name, item in value.items():
        known = decoders.get(name)
        if known is not None and item is not None:
            fields[known[0]] = known[1](item, f"{path}.{name}")
    if missing := kind._required - fields.keys():
        names = ", ".join(sorted(f"`{kind.property_of(field)}`" for field in missing))
        raise WrongType(f"object missing required field {names} - at `{path}`")
    return kind(**fields)


def plain(value: object) -> Any:
    """Structs as mappings, all the way down."""
    if isinstance(value, SpecStruct):
        kind = type(value)
        found = {}
        for field in kind._fields:
            item = getattr(value, field)
            if field in kind._required or item != getattr(kind, field):
                found[kind.property_of(field)] = plain(item)
        return found
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


_decoders: dict[type, dict[str, tuple[str, Decoder]]] = {}


def _compile(kind: type[SpecStruct]) -> dict[str, tuple[str, Decoder]]:
    found = {}
    kind.find_fields()
    for owner in reversed(kind.__mro__):
        module = vars(sys.modules[owner.__module__])
        for field, annotation in owner.__dict__.get("__annotations__", {}).items():
            if field in kind._fields:
                found[kind.property_of(field)] = (field, _decoder(annotation, module))
    return found


def _decoder(annotation: str, module: dict[str, Any]) -> Decoder:
    annotation = annotation.removesuffix(" | None")
    if annotation.startswith("list["):
        return _list_of(_decoder(annotation[5:-1], module))
    if annotation.startswith("dict[str, "):
        return _mapping_of(_decoder(annotation[10:-1], module))
    if annotation in _PRIMITIVES:
        return _PRIMITIVES[annotation]
    kind = module[annotation]
    if issubclass(kind, SpecStruct):
        return lambda value, path: struct(kind, value, path)
    return _word_of(kind)


def _exactly(kind: type, name: str) -> Decoder:
    def decode(value: Any, path: str) -> Any:
        # type(), not isinstance(): true is no number.
        if type(value) is not kind:
            raise _wrong(name, value, path)
        return value

    return decode


def _list_of(item: Decoder) -> Decoder:
    def decode(value: Any, path: str) -> Any:
        if type(value) is not list:
            raise _wrong("array", value, path)
        return [item(entry, f"{path}[{index}]") for index, entry in enumerate(value)]

    return decode


def _mapping_of(item: Decoder) -> Decoder:
    def decode(value: Any, path: str) -> Any:
        if type(value) is not dict:
            raise _wrong("object", value, path)
        return {key: item(entry, f"{path}[{key!r}]") for key, entry in value.items()}

    return decode


def _word_of(kind: type[str]) -> Decoder:
    def decode(value: Any, path: str) -> Any:
        if type(value) is not str:
            raise _wrong("str", value, path)
        try:
            return kind(value)
        except ValueError as error:
            raise WrongType(f"{error} - at `{path}`") from None

    return decode


_PRIMITIVES: dict[str, Decoder] = {
    "str": _exactly(str, "str"),
    "int": _exactly(int, "int"),
    "bool": _exactly(bool, "bool"),
    "Any": lambda value, path: value,
}
_NAMES: dict[type, str] = {dict: "object", list: "array"}


def _wrong(expected: str, value: object, path: str) -> WrongType:
    got = "null" if value is None else _NAMES.get(type(value), type(value).__name__)
    return WrongType(f"expected `{expected}`, got `{got}` - at `{path}`")
