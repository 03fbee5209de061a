"""`rawpod apply`: objects as manifests say, all of them or none."""

from typing import Any

import click

from runtime.cli.client import Client, Object, Rejected
from runtime.cli.targets import title
from runtime.settings import Settings

APPLY = "/apis/rawpod.dev/v1/apply"


@click.command()
@click.option("-f", "--filename", "files", multiple=True, required=True, metavar="FILE|DIR|-", help="Manifests.")
@click.option(
    "--dry-run",
    type=click.Choice(["none", "server", "client"]),
    default="none",
    is_flag=False,
    flag_value="server",
    help="Change nothing: the supervisor checks everything (server, also if none is given), or only we do (client).",
)
@click.pass_obj
def apply(settings: Settings, files: tuple[str, ...], dry_run: str) -> None:
    """Create or change objects as manifests say: all of them or, if one is wrong, none."""
    if dry_run == "client":
        from runtime.pod import manifest

        for document in manifest.load(files):
            print(f"{title(document.object.kind, document.object.metadata.name)} is valid (client dry run)")
        return
    done = send(Client(settings.socket), files, dry_run=dry_run == "server")
    for one in done["results"]:
        suffix = " (dry run)" if dry_run == "server" else ""
        print(f"{title(one['object']['kind'], one['object']['metadata']['name'])} {one['result']}{suffix}")


def send(client: Client, files: tuple[str, ...], *, dry_run: bool) -> Object:
    """What the supervisor makes of manifests: an ApplyResult. Raises Faults with the lines they are in."""
    import msgspec

    from runtime.pod import manifest, validate

    documents = manifest.load(files)
    # As written, without the defaults that loading filled in: what a manifest does not say is not its to change.
    items = [msgspec.to_builtins(validate.decode(document.node.value)[0]) for document in documents]
    body = {"apiVersion": "v1", "kind": "List", "items": items}
    try:
        return client.request("POST", APPLY, body, dryRun="All" if dry_run else None)
    except Rejected as error:
        _locate(error, documents, files)
        raise


def _locate(error: Rejected, documents: list[Any], files: tuple[str, ...]) -> None:
    """Raises the faults with the lines of their documents, if there are any."""
    from runtime.pod.faults import Fault, Faults

    faults = []
    for field, message in error.causes:
        head, _, rest = field.partition("].")
        index = head.removeprefix("items[").rstrip("]")
        place = documents[int(index)].place if index.isdecimal() else f"{files[0]}:0"
        file, _, line = place.rpartition(":")
        faults.append(Fault((), f"{rest or field}: {message}", file=file, line=int(line)))
    if faults:
        raise Faults(faults) from None
