"""`rawpod wait`: until objects are as asked for, told by the door's watch."""

import sys
import time
from collections.abc import Callable
from typing import Any

import click

from kernel.errors import BadInput, NotFound, RawpodError
from runtime.cli import targets
from runtime.cli.client import Client, Object
from runtime.cli.jsonpath import as_text, compile_path
from runtime.cli.targets import Target, title
from runtime.pod.logoptions import duration
from runtime.settings import Settings

_WEEK = 7 * 24 * 3600.0

Condition = Callable[[Object | None], bool]
"""Whether an object, or None for one that is not there, is as asked for."""


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND NAME… | KIND/NAME…")
@click.option(
    "--for",
    "wanted",
    required=True,
    metavar="CONDITION",
    help="delete, create, condition=NAME[=VALUE] (true if not given), or jsonpath='{PATH}'[=VALUE] (any if not given).",
)
@click.option(
    "--timeout",
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="For all objects together. 0: look once; below 0: a week.",
)
@targets.namespace_option()
@targets.selector_option()
@click.option("--all", "everything", is_flag=True, help="All objects of the kind in the namespace.")
@click.pass_obj
def wait(
    settings: Settings,
    what: tuple[str, ...],
    wanted: str,
    timeout: str,
    namespace: str,
    selector: str | None,
    everything: bool,
) -> int:
    """Wait until objects are as asked for. Exit status 1 if they are not in time."""
    condition = parse(wanted)
    deadline = time.monotonic() + (_WEEK if timeout.startswith("-") else duration(timeout))
    client = Client(settings.socket)
    late = 0
    for target in _named(client, targets.parse(what), namespace, selector, everything):
        named = title(target.resource.kind, str(target.name))
        if _wait(client, target, namespace, condition, deadline, must_exist=wanted not in ("delete", "create")):
            print(f"{named} condition met")
            sys.stdout.flush()
        else:
            print(f"rawpod: timed out waiting for the condition on {named}", file=sys.stderr)
            late = 1
    return late


def parse(text: str) -> Condition:
    """The condition that --for names. Raises BadInput, NotSupported."""
    kind, equals, rest = text.partition("=")
    if text == "delete":
        return lambda item: item is None
    if text == "create":
        return lambda item: item is not None
    if kind == "condition" and rest:
        name, _, value = rest.partition("=")
        return _condition(name.lower(), (value or "true").lower())
    if kind == "jsonpath" and equals:
        return _jsonpath(rest)
    raise BadInput(f'--for "{text}"', remedy="delete, create, condition=NAME[=VALUE] or jsonpath='{PATH}'[=VALUE]")


def _condition(name: str, value: str) -> Condition:
    def holds(item: Object | None) -> bool:
        if item is None:
            return False
        status = item.get("status") or {}
        # What was observed of an older generation tells nothing about this one.
        observed = status.get("observedGeneration")
        if observed is not None and observed < item["metadata"].get("generation", 0):
            return False
        conditions = status.get("conditions") or ()
        return any(one["type"].lower() == name and one["status"].lower() == value for one in conditions)

    return holds


def _jsonpath(text: str) -> Condition:
    path, brace, rest = text.partition("}")
    if brace:
        path, equals, value = path + brace, rest[:1], rest[1:]
        if equals not in ("", "="):
            raise BadInput(f'--for "jsonpath={text}"', remedy="write jsonpath='{PATH}'=VALUE")
    else:
        # An equals sign in a filter is not the one before the value.
        at = text.find("=", text.rfind("]") + 1)
        path, equals, value = (text, "", "") if at < 0 else (text[:at], "=", text[at + 1 :])
    if equals and not value:
        raise BadInput(f'--for "jsonpath={text}" has no value', remedy="write one, or leave the = out")
    find = compile_path(path)

    def holds(item: Object | None) -> bool:
        found: list[Any] = [] if item is None else find(item)
        if not equals:
            return bool(found)
        if len(found) > 1:
            raise BadInput(f"JSONPath {path!r} fits {len(found)} values", remedy="it has to fit one")
        if found and isinstance(found[0], dict | list):
            raise BadInput(f"JSONPath {path!r} does not lead to a text, number or boolean")
        return bool(found) and as_text(found[0]) == value.strip("'\"")

    return holds


def _named(
    client: Client, wanted: list[Target], namespace: str, selector: str | None, everything: bool
) -> list[Target]:
    """Each object meant, by name."""
    found: list[Target] = []
    for target in wanted:
        if target.name is not None:
            if selector or everything:
                raise BadInput("names, and -l or --all", remedy="leave one of them out")
            found.append(target)
            continue
        if not (selector or everything):
            raise BadInput(f"which {target.resource.plural}?", remedy="give names, -l LABELS or --all")
        items = client.request("GET", target.resource.path(namespace), labelSelector=selector)["items"]
        found += [Target(target.resource, item["metadata"]["name"]) for item in items]
    if not found:
        raise NotFound("no matching objects found", remedy="see `rawpod get`")
    return found


def _wait(
    client: Client, target: Target, namespace: str, condition: Condition, deadline: float, *, must_exist: bool
) -> bool:
    """Whether the object was as asked for before the deadline."""
    path, query = target.resource.path(namespace), {"fieldSelector": f"metadata.name={target.name}"}
    listed = client.request("GET", path, **query)
    item = next(iter(listed["items"]), None)
    if item is None and must_exist:
        raise NotFound(f'{target.resource.qualified} "{target.name}" not found')
    if condition(item):
        return True
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    version = listed["metadata"]["resourceVersion"]
    try:
        for event in client.watch(path, deadline, resourceVersion=version, **query):
            gone = event["type"] == "DELETED"
            if condition(None if gone else event["object"]):
                return True
            if gone and must_exist:
                raise NotFound(f'{target.resource.qualified} "{target.name}" was deleted')
    except TimeoutError:
        return False
    raise RawpodError("the supervisor ended before the condition was met", remedy="see `rawpod get`")
