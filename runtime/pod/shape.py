"""From a tree of mappings, lists and scalars to typed objects, with all faults of form found at once.

msgspec itself stops at the first fault. Here a faulty value is noted and left at its default, so that the rest of the
document can be read and judged too. Values that may be secret are never shown.
"""

from __future__ import annotations

import types
from functools import cache
from typing import Any, NewType, Union, get_args, get_origin

import msgspec

from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.known import UNSUPPORTED, asks_for_nothing
from runtime.pod.meta import IntOrString, KubernetesStruct, Mode, Quantity

_SENSITIVE = frozenset({"value", "data", "stringData", "binaryData"})
_NAMES: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    IntOrString: "a whole number or a string",
}


class Ambiguous(str):
    """A plain YAML scalar that readers of YAML disagree about: `no`, `010`, `2026-01-31`, `1_000`."""


class DecimalNumber(float):
    """A float that remembers how it was written, because amounts must not be rounded."""

    text: str

    def __new__(cls, text: str) -> DecimalNumber:
        number = super().__new__(cls, text.replace(".inf", "inf").replace(".nan", "nan"))
        number.text = text
        return number


class Shaper:
    """Converts one document; `faults` collects what was wrong with it."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def convert(self, value: Any, kind: Any, path: Path) -> Any:
        """The value as `kind`, or the kind's empty value after noting a fault."""
        kind = _without_none(kind)
        if isinstance(kind, type) and issubclass(kind, KubernetesStruct):
            return self._struct(value, kind, path)
        origin = get_origin(kind)
        if origin is dict:
            return self._mapping(value, get_args(kind)[1], path)
        if origin is list:
            return self._list(value, get_args(kind)[0], path)
        return self._scalar(value, kind, path)

    def _struct(self, value: Any, kind: type[KubernetesStruct], path: Path) -> KubernetesStruct:
        fields = _fields(kind)
        given: dict[str, Any] = {}
        if not isinstance(value, dict):
            self._wrong_type(path, value, dict)
            value = {}
        for key, item in value.items():
            if key not in fields:
                self._unknown(kind, key, item, path)
            elif item is not None:  # null is the same as leaving the field out
                field = fields[key]
                given[field.name] = self.convert(item, field.type, (*path, key))
        return kind(**given)

    def _unknown(self, kind: type[KubernetesStruct], key: str, value: Any, path: Path) -> None:
        unsupported = UNSUPPORTED.get(kind, frozenset())
        if key not in unsupported:
            known = [name for name in _fields(kind) if name != "status"]
            self._fault((*path, key), f"unknown field {shown(key)}", nearest(key, known))
        elif not asks_for_nothing(key, value):
            self._fault((*path, key), "not supported by rawpod yet", "remove it")

    def _mapping(self, value: Any, kind: Any, path: Path) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._wrong_type(path, value, dict)
            return {}
        return {key: self.convert(item, kind, (*path, key)) for key, item in value.items()}

    def _list(self, value: Any, kind: Any, path: Path) -> list[Any]:
        if not isinstance(value, list):
            self._wrong_type(path, value, list)
            return []
        return [self.convert(item, kind, (*path, index)) for index, item in enumerate(value)]

    def _scalar(self, value: Any, kind: Any, path: Path) -> Any:
        if kind is Any:
            return value
        if kind is Quantity:
            return self._quantity(value, path)
        if kind is Mode and isinstance(value, Ambiguous) and set(value) <= set("01234567"):
            return int(value, 8)
        if kind == IntOrString:
            if type(value) in (int, str):
                return value
            self._wrong_type(path, value, kind)
            return 0
        base: Any = kind.__supertype__ if isinstance(kind, NewType) else kind
        if type(value) is base:
            return value
        self._wrong_type(path, value, base)
        return base()

    def _quantity(self, value: Any, path: Path) -> str:
        if isinstance(value, DecimalNumber):
            return value.text
        if isinstance(value, (Ambiguous, bool)) or not isinstance(value, (str, int, float)):
            self._wrong_type(path, value, str)
            return ""
        return str(value)

    def _wrong_type(self, path: Path, value: Any, wanted: Any) -> None:
        if _SENSITIVE.intersection(part for part in path if isinstance(part, str)):
            hint = "write it in quotes" if wanted is str and _is_scalar(value) else ""
            self._fault(path, f"{_describe(value)} where {_NAMES[wanted]} belongs", hint)
            return
        text = value.text if isinstance(value, DecimalNumber) else value
        what = f"{shown(_as_written(text))} is {_describe(value)}" if _is_scalar(value) else _describe(value)
        self._fault(path, f"{what} where {_NAMES[wanted]} belongs", _remedy(text, wanted))

    def _fault(self, path: Path, wrong: str, right: str = "") -> None:
        self.faults.append(Fault(path, wrong, right))


def _remedy(value: Any, wanted: Any) -> str:
    if wanted is str and _is_scalar(value) and value is not None:
        return f'write it in quotes: "{_as_written(value)}"' if len(str(value)) <= 60 else "write it in quotes"
    if wanted is bool and isinstance(value, str) and value.lower() in ("yes", "on", "y"):
        return "write true"
    if wanted is bool and isinstance(value, str) and value.lower() in ("no", "off", "n"):
        return "write false"
    if wanted is int and isinstance(value, str) and value.strip("-+").isdecimal():
        return "write it without quotes and without leading zeros"
    return ""


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, (dict, list))


def _as_written(value: Any) -> str:
    return {True: "true", False: "false", None: "null"}.get(value, str(value)) if not isinstance(value, str) else value


def _describe(value: Any) -> str:
    if isinstance(value, Ambiguous):
        return "read differently by different programs"
    if value is None:
        return "nothing"
    kinds = ((bool, "true or false"), (int, "a whole number"), (float, "a number"), (str, "a string"))
    return next(
        (name for kind, name in kinds if isinstance(value, kind)), "a list" if type(value) is list else "a mapping"
    )


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        parts = [part for part in get_args(kind) if part is not types.NoneType]
        return parts[0] if len(parts) == 1 else kind
    return kind


@cache
def _fields(kind: type[KubernetesStruct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}
