"""Which objects a command line means: `pods`, `pod web`, `pod/web rs/web-1`, with a namespace and selectors."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from kernel.errors import BadInput
from runtime.supervisor.resources import RESOURCES, Resource, find

DEFAULT_NAMESPACE = "default"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Target(NamedTuple):
    """A kind, and one object of it or (None) all."""

    resource: Resource
    name: str | None


def parse(words: Sequence[str]) -> list[Target]:
    """`KIND`, `KIND,KIND`, `KIND NAME…` or `KIND/NAME…`. Raises BadInput, NotFound for an unknown kind."""
    if any("/" in word for word in words):
        pairs = [word.split("/") for word in words]
        if any(len(pair) != 2 or not all(pair) for pair in pairs):
            raise BadInput(f'cannot read "{" ".join(words)}"', remedy="write KIND/NAME for each, or KIND NAME…")
        return [Target(find(kind), name) for kind, name in pairs]
    if not words:
        raise BadInput("which kind of object?", remedy=", ".join(resource.plural for resource in RESOURCES))
    kinds, names = _kinds(words[0]), words[1:]
    if not names:
        return [Target(kind, None) for kind in kinds]
    if len(kinds) > 1:
        raise BadInput("names go with one kind", remedy="write KIND/NAME for each")
    return [Target(kinds[0], name) for name in names]


def _kinds(word: str) -> list[Resource]:
    if word == "all":
        return [resource for resource in RESOURCES if "all" in resource.categories]
    return [find(kind) for kind in word.split(",")]


def namespace_option() -> Decorator:
    """-n/--namespace."""
    return click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Namespace to look in.")


def selector_option() -> Decorator:
    """-l/--selector."""
    return click.option("-l", "--selector", metavar="LABELS", help="Only objects with these labels: app=web,tier!=db.")


def title(kind: str, name: str) -> str:
    """An object as messages name it: deployment/web."""
    return f"{kind.lower()}/{name}"
