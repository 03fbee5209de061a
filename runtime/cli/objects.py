"""`rawpod get`, `delete` and `scale`: the supervisor's objects from the command line."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from kernel.errors import BadInput, NotFound
from runtime.cli import targets
from runtime.cli.client import MERGE_PATCH, Client, Object
from runtime.cli.targets import Target, title
from runtime.settings import Settings
from runtime.supervisor.resources import BY_KIND


@click.command()
@click.argument("what", nargs=-1, metavar="KIND [NAME]… | KIND/NAME…")
@targets.namespace_option()
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@targets.selector_option()
@click.option("--field-selector", metavar="FIELDS", help="As metadata.name=web or status.phase!=Running.")
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml", "name"]), help="How to print.")
@click.option("-w", "--watch", is_flag=True, help="Go on printing what changes.")
@click.pass_obj
def get(
    settings: Settings,
    what: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    selector: str | None,
    field_selector: str | None,
    output: str | None,
    watch: bool,
) -> None:
    """List objects: pods (po), deployments (deploy), replicasets (rs), configmaps (cm), secrets, or all."""
    from runtime.cli.printing import Printer

    wanted = targets.parse(what)
    if watch and len(wanted) != 1:
        raise BadInput("one kind can be watched at a time")
    if (selector or field_selector) and any(target.name for target in wanted):
        raise BadInput("a selector and a name at once", remedy="leave one of them out")
    client = Client(settings.socket)
    place = None if all_namespaces else namespace
    query = {"labelSelector": selector, "fieldSelector": field_selector}
    printer = Printer(output, namespaces=all_namespaces)
    if watch:
        _watch(client, wanted[0], place, query, printer)
        return
    found: list[Object] = []
    for target in wanted:
        items = list(_select(client, target, place, query))
        printer.group(target.resource.kind, items, titles=len(wanted) > 1)
        found += items
    single = len(wanted) == 1 and wanted[0].name is not None
    printer.finish(found, single=single, where=place)


def _select(client: Client, target: Target, namespace: str | None, query: dict[str, Any]) -> Iterator[Object]:
    if target.name is None:
        yield from _list(client, target, namespace, query)["items"]
    elif namespace is None:
        raise BadInput("a name is in one namespace", remedy="give -n instead of -A")
    else:
        yield client.request("GET", target.resource.path(namespace, target.name))


def _list(client: Client, target: Target, namespace: str | None, query: dict[str, Any]) -> Object:
    return client.request("GET", target.resource.path(namespace), **query)


def _watch(client: Client, target: Target, namespace: str | None, query: dict[str, Any], printer: Any) -> None:
    if target.name is not None:
        query = {"fieldSelector": f"metadata.name={target.name}"}
    listed = _list(client, target, namespace, query)
    printer.stream(target.resource.kind, listed["items"])
    version = listed["metadata"]["resourceVersion"]
    for event in client.watch(target.resource.path(namespace), resourceVersion=version, **query):
        printer.stream(target.resource.kind, [event["object"]])
        sys.stdout.flush()


@click.command()
@click.argument("what", nargs=-1, metavar="KIND NAME… | KIND/NAME…")
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE|DIR|-", help="What these manifests name.")
@targets.namespace_option()
@targets.selector_option()
@click.option("--field-selector", metavar="FIELDS", help="Only objects as metadata.name=web or status.phase!=Running.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind in the namespace.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return when the objects are gone.")
@click.option("--grace-period", type=click.IntRange(min=0), metavar="SECONDS", help="Between SIGTERM and SIGKILL.")
@click.option(
    "--cascade",
    type=click.Choice(["background", "foreground", "orphan"]),
    default="background",
    show_default=True,
    help="What becomes of what the objects own: deleted after them, deleted before they are gone, or kept.",
)
@click.option("--ignore-not-found", is_flag=True, help="What is not there is no error.")
@click.pass_obj
def delete(
    settings: Settings,
    what: tuple[str, ...],
    files: tuple[str, ...],
    namespace: str,
    selector: str | None,
    field_selector: str | None,
    everything: bool,
    wait: bool,
    grace_period: int | None,
    cascade: str,
    ignore_not_found: bool,
) -> None:
    """Delete objects and what they own."""
    client = Client(settings.socket)
    options: Object = {"propagationPolicy": cascade.capitalize()}
    if grace_period is not None:
        options["gracePeriodSeconds"] = grace_period
    query = {"labelSelector": selector, "fieldSelector": field_selector}
    left: list[tuple[str, Object]] = []
    for kind, place, name in _to_delete(client, what, files, namespace, query, everything):
        path = BY_KIND[kind].path(place, name)
        try:
            answer = client.request("DELETE", path, options)
        except NotFound:
            if not ignore_not_found:
                raise
            continue
        print(f"{title(kind, name)} deleted")
        if answer["kind"] != "Status":
            left.append((BY_KIND[kind].path(place), answer))
    sys.stdout.flush()
    for path, item in left if wait else ():
        _wait_gone(client, path, item["metadata"])


def _to_delete(
    client: Client,
    what: Sequence[str],
    files: Sequence[str],
    namespace: str,
    query: dict[str, Any],
    everything: bool,
) -> list[tuple[str, str, str]]:
    """Kind, namespace and name of each object meant."""
    if files:
        if what or any(query.values()) or everything:
            raise BadInput("-f names the objects", remedy="leave out kinds, names, selectors and --all")
        from runtime.pod import manifest

        # What refers to others goes first, in the reverse order of apply.
        loaded = [document.object for document in reversed(manifest.load(files))]
        return [(item.kind, item.metadata.namespace, item.metadata.name) for item in loaded]
    found: list[tuple[str, str, str]] = []
    for target in targets.parse(what):
        if target.name is not None:
            found.append((target.resource.kind, namespace, target.name))
            continue
        if not (any(query.values()) or everything):
            raise BadInput(f"which {target.resource.plural}?", remedy="give names, -l LABELS or --all")
        items = _list(client, target, namespace, query)["items"]
        found += [(target.resource.kind, namespace, item["metadata"]["name"]) for item in items]
    return found


def _wait_gone(client: Client, path: str, metadata: Object) -> None:
    """Until the object of this uid is not there any more."""
    selector = f"metadata.name={metadata['name']}"
    listed = client.request("GET", path, fieldSelector=selector)
    if all(item["metadata"]["uid"] != metadata["uid"] for item in listed["items"]):
        return
    version = listed["metadata"]["resourceVersion"]
    for event in client.watch(path, fieldSelector=selector, resourceVersion=version):
        if event["type"] == "DELETED" and event["object"]["metadata"]["uid"] == metadata["uid"]:
            return
    raise NotFound("the supervisor ended before the objects were gone", remedy="see `rawpod get`")


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND/NAME…")
@click.option("--replicas", type=click.IntRange(min=0), required=True, help="How many there shall be.")
@targets.namespace_option()
@click.pass_obj
def scale(settings: Settings, what: tuple[str, ...], replicas: int, namespace: str) -> None:
    """Set the number of replicas of a deployment or replicaset."""
    client = Client(settings.socket)
    wanted = targets.parse(what)
    for target in wanted:
        if target.name is None or "scale" not in target.resource.subresources:
            raise BadInput(f'"{" ".join(what)}" cannot be scaled', remedy="name deployment/NAME or replicaset/NAME")
    for target in wanted:
        path = target.resource.path(namespace, target.name, "scale")
        client.request("PATCH", path, {"spec": {"replicas": replicas}}, MERGE_PATCH)
        print(f"{title(target.resource.kind, str(target.name))} scaled")
