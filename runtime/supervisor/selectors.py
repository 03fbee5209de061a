"""Label and field selectors as Kubernetes writes them in a URL and in a spec.

The grammar is that of "Labels and Selectors" in the Kubernetes documentation:
`app=web,tier!=db,release in (a,b),!canary,partition`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from kernel.errors import BadInput, NotSupported
from runtime.supervisor.resources import Object

Matcher = Callable[[Object], bool]

_KEY = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EQUALITY = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_SPLIT = re.compile(r",(?![^()]*\))")

FIELDS: dict[str, Callable[[Object], str]] = {
    "metadata.name": lambda item: str(item["metadata"]["name"]),
    "metadata.namespace": lambda item: str(item["metadata"]["namespace"]),
    "status.phase": lambda item: str(item.get("status", {}).get("phase", "")),
}


def everything(_item: Object) -> bool:
    """The selector that selects all."""
    return True


def both(first: Matcher, second: Matcher) -> Matcher:
    """What both select."""
    if first is everything:
        return second
    if second is everything:
        return first
    return lambda item: first(item) and second(item)


def labels(text: str) -> Matcher:
    """Parses a labelSelector. Raises BadInput naming the requirement that does not parse."""
    matcher: Matcher = everything
    for requirement in filter(None, (part.strip() for part in _SPLIT.split(text))):
        matcher = both(matcher, _requirement(requirement))
    return matcher


def _requirement(text: str) -> Matcher:
    if match := _EQUALITY.fullmatch(text):
        key, operator, value = match.groups()
        return _operator(key, "NotIn" if operator == "!=" else "In", (value,))
    if match := _SET.fullmatch(text):
        key, operator, values = match.groups()
        return _operator(key, "In" if operator == "in" else "NotIn", tuple(v.strip() for v in values.split(",")))
    if match := _EXISTS.fullmatch(text):
        return _operator(match[2], "DoesNotExist" if match[1] else "Exists", ())
    raise BadInput(
        f'label selector: cannot read "{text}"', remedy="write key=value, key!=value, key in (a,b), key or !key"
    )


def _operator(key: str, operator: str, values: tuple[str, ...]) -> Matcher:
    def held(item: Object) -> str | None:
        value: str | None = (item["metadata"].get("labels") or {}).get(key)
        return value

    match operator:
        case "In":
            return lambda item: held(item) in values
        case "NotIn":  # a missing key is not in any set
            return lambda item: held(item) not in values
        case "Exists":
            return lambda item: held(item) is not None
        case "DoesNotExist":
            return lambda item: held(item) is None
    raise BadInput(f'selector operator "{operator}"', remedy="In, NotIn, Exists or DoesNotExist")


def of_spec(selector: Mapping[str, Any] | None) -> Matcher:
    """A spec's selector (matchLabels, matchExpressions). An empty one selects nothing: no owner claims all."""
    if not selector:
        return lambda _item: False
    matcher: Matcher = everything
    for key, value in (selector.get("matchLabels") or {}).items():
        matcher = both(matcher, _operator(key, "In", (value,)))
    for expression in selector.get("matchExpressions") or ():
        values = tuple(expression.get("values") or ())
        matcher = both(matcher, _operator(expression["key"], expression["operator"], values))
    return matcher if matcher is not everything else lambda _item: False


def fields(text: str) -> Matcher:
    """Parses a fieldSelector. Raises BadInput if it does not parse, NotSupported for a field that is not in FIELDS."""
    matcher: Matcher = everything
    for requirement in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([A-Za-z.]+)\s*(==|=|!=)\s*(.*)", requirement)
        if match is None:
            raise BadInput(f'field selector: cannot read "{requirement}"', remedy="write field=value or field!=value")
        matcher = both(matcher, _field(match[1], match[2] != "!=", match[3]))
    return matcher


def _field(path: str, wanted: bool, value: str) -> Matcher:
    read = FIELDS.get(path)
    if read is None:
        raise NotSupported(f'field selector on "{path}"', remedy=f"supported: {', '.join(FIELDS)}")
    return lambda item: (read(item) == value) is wanted
