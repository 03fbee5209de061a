"""The JSONPath of `rawpod wait --for=jsonpath=…`: kubectl's, in the part that picks values out of an object. Pure.

`{.status.phase}`, `.metadata.labels.app\\.kubernetes\\.io/name`, `['a key']`, `[0]`, `[-1]`, `[*]`,
`[?(@.type=="Ready")].status`. Braces may be left out, as kubectl allows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kernel.errors import NotSupported

Step = Callable[[Any], list[Any]]

_STEP = re.compile(
    r"""\.(?P<field>(?:[^.\[\]{}\\'"\s*]|\\.)+)"""
    r"""|\[(?P<index>-?\d+)\]"""
    r"""|\[(?P<quote>['"])(?P<key>[^'"]+)(?P=quote)\]"""
    r"""|\[\?\(\s*@\.(?P<path>[A-Za-z0-9_.]+)\s*(?P<operator>==|!=)\s*(?P<value>"[^"]*"|'[^']*'|[\w.+-]+)\s*\)\]"""
    r"""|(?P<all>\[\*\]|\.\*)"""
)


def compile_path(text: str) -> Callable[[Any], list[Any]]:
    """A function that gives the values at the path. Raises NotSupported for what is not of the form above."""
    path = text.strip().removeprefix("{").removesuffix("}").strip().removeprefix("$")
    if not path.startswith((".", "[")):
        path = "." + path
    steps: list[Step] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise NotSupported(
                f"JSONPath {text!r}", remedy="fields, indices, [*] and [?(@.field==value)] are supported"
            )
        steps.append(_step(match))
        at = match.end()

    def values(item: Any) -> list[Any]:
        found = [item]
        for step in steps:
            found = [value for one in found for value in step(one)]
        return found

    return values


def _step(match: re.Match[str]) -> Step:
    if match["all"]:
        return lambda item: list(item.values()) if isinstance(item, dict) else item if isinstance(item, list) else []
    if match["index"]:
        return _index(int(match["index"]))
    if match["path"]:
        return _filter(match["path"].split("."), match["operator"] == "==", match["value"].strip("'\""))
    return _field(match["key"] or re.sub(r"\\(.)", r"\1", match["field"]))


def _field(name: str) -> Step:
    return lambda item: [item[name]] if isinstance(item, dict) and name in item else []


def _index(index: int) -> Step:
    return lambda item: [item[index]] if isinstance(item, list) and -len(item) <= index < len(item) else []


def _filter(path: list[str], equal: bool, wanted: str) -> Step:
    def chosen(item: Any) -> bool:
        for name in path:
            item = item.get(name) if isinstance(item, dict) else None
        return item is not None and (as_text(item) == wanted) is equal

    return lambda item: [one for one in item if chosen(one)] if isinstance(item, list) else []


def as_text(value: Any) -> str:
    """A scalar as kubectl compares it."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
