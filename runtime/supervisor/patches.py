"""Changes to decoded JSON: merge patch (RFC 7386) and JSON patch (RFC 6902). Pure."""

import copy
from typing import Any

from kernel.errors import BadInput


def merge(target: Any, patch: Any) -> Any:
    """A merge patch: mappings are merged, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """A JSON patch. Raises BadInput naming the operation that cannot be done; `target` is left as it was."""
    if not isinstance(operations, list):
        raise BadInput("a JSON patch is a list of operations")
    result = {"": copy.deepcopy(target)}  # so that the root has a parent, too
    for index, operation in enumerate(operations):
        try:
            _operate(result, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"operation {index} of the JSON patch cannot be done: {error}") from None
    return result[""]


def _operate(root: dict[str, Any], operation: dict[str, Any]) -> None:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            _add(root, path, operation["value"])
        case "remove":
            _remove(root, path)
        case "replace":
            _remove(root, path)
            _add(root, path, operation["value"])
        case "move":
            source = _pointer(operation["from"])
            if path[: len(source)] == source and path != source:
                raise ValueError("a value cannot be moved into itself")
            _add(root, path, _remove(root, source))
        case "copy":
            _add(root, path, copy.deepcopy(_get(root, _pointer(operation["from"]))))
        case "test":
            if _get(root, path) != operation["value"]:
                raise ValueError(f"{operation['path']} is another value")
        case other:
            raise ValueError(f'unknown op "{other}"')


def _pointer(text: str) -> list[str]:
    """A JSON pointer (RFC 6901) below the artificial root."""
    if text and not text.startswith("/"):
        raise ValueError(f'path "{text}" does not begin with /')
    return ["", *(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])]


def _index(part: str, length: int) -> int:
    if not (part.isascii() and part.isdecimal()) or (len(part) > 1 and part[0] == "0"):
        raise ValueError(f'"{part}" is no index')
    if int(part) >= length:
        raise IndexError(f"index {part} is beyond the end")
    return int(part)


def _get(root: Any, path: list[str]) -> Any:
    for part in path:
        root = root[_index(part, len(root))] if isinstance(root, list) else root[part]
    return root


def _add(root: Any, path: list[str], value: Any) -> None:
    parent, last = _get(root, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise ValueError(f'nothing can be below "{path[-2]}"')


def _remove(root: Any, path: list[str]) -> Any:
    parent, last = _get(root, path[:-1]), path[-1]
    return parent.pop(_index(last, len(parent))) if isinstance(parent, list) else parent.pop(last)
