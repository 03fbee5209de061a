"""`rawpod diff`: what `apply` would change, as a unified diff of what is live and what would be."""

import difflib
from collections.abc import Iterator
from typing import Any

import click

from kernel.errors import NotFound
from runtime.cli.apply import send
from runtime.cli.client import Client, Object
from runtime.cli.printing import to_yaml
from runtime.settings import Settings
from runtime.supervisor.resources import BY_KIND

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@click.command()
@click.option("-f", "--filename", "files", multiple=True, required=True, metavar="FILE|DIR|-", help="Manifests.")
@click.pass_obj
def diff(settings: Settings, files: tuple[str, ...]) -> int:
    """Show what `rawpod apply` would change.

    Exit status: 0 if nothing, 1 if something, more than 1 if that cannot be told.
    """
    client = Client(settings.socket)
    # The objects as they would be are made by the supervisor, with its defaults and its merge.
    results = send(client, files, dry_run=True)["results"]
    differs = 0
    for one in results:
        merged = one["object"]
        for line in _compare(_live(client, merged), merged):
            differs = 1
            print(line)
    return differs


def _live(client: Client, item: Object) -> Object | None:
    metadata = item["metadata"]
    try:
        return client.request("GET", BY_KIND[item["kind"]].path(metadata["namespace"], metadata["name"]))
    except NotFound:
        return None


def _compare(live: Object | None, merged: Object) -> Iterator[str]:
    metadata = merged["metadata"]
    api = merged["apiVersion"].replace("/", ".")
    name = f"{api}.{merged['kind']}.{metadata['namespace']}.{metadata['name']}"
    before, after = _shown(live), _shown(merged)
    if merged["kind"] == "Secret":
        _mask(before, after)
    old, new = (to_yaml(item).splitlines() if item else [] for item in (before, after))
    yield from difflib.unified_diff(old, new, f"live/{name}", f"merged/{name}", lineterm="")


def _shown(item: Object | None) -> Object:
    """The object without what every write changes: its version and the manifest that is kept beside it."""
    if item is None:
        return {}
    metadata = {key: value for key, value in item["metadata"].items() if key != "resourceVersion"}
    annotations = {key: value for key, value in metadata.pop("annotations", {}).items() if key != _LAST_APPLIED}
    if annotations:
        metadata["annotations"] = annotations
    return {**item, "metadata": metadata}


def _mask(before: Object, after: Object) -> None:
    """A secret's values are not for screens: which of them change is told, as kubectl does."""
    old: dict[str, Any] = before.get("data") or {}
    new: dict[str, Any] = after.get("data") or {}
    for item, values, other, word in ((before, old, new, "before"), (after, new, old, "after")):
        masked = {
            key: f"*** ({word})" if key in other and other[key] != value else "***" for key, value in values.items()
        }
        if masked:
            item["data"] = masked
