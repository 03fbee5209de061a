"""`rawpod image`: its table of commands, and those that show, name and remove images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from runtime.cli.main import Entry, LazyGroup, Section
from runtime.settings import Settings

if TYPE_CHECKING:
    from rootfs.images.image import Image
    from rootfs.images.store import ImageStore

_HERE, _ARCHIVES, _REGISTRY = "runtime.cli.image", "runtime.cli.image_archives", "runtime.cli.image_registry"

SECTIONS = (
    Section(
        "From and to registries",
        (
            Entry("pull", f"{_REGISTRY}:pull", "Fetch an image from a registry."),
            Entry("push", f"{_REGISTRY}:push", "Send an image to a registry."),
        ),
    ),
    Section(
        "From and to files",
        (
            Entry("load", f"{_ARCHIVES}:load", "Load images from an OCI layout or a docker-archive."),
            Entry("save", f"{_ARCHIVES}:save", "Save images as an OCI layout or a docker-archive."),
            Entry("import", f"{_ARCHIVES}:import_", "Make a root file system in a tar an image."),
            Entry("export", f"{_ARCHIVES}:export", "Write the root file system of an image or container as a tar."),
            Entry("commit", f"{_ARCHIVES}:commit", "Make what a container wrote an image."),
            Entry("build-base", "runtime.cli.image_build:build_base", "Make an image of Debian packages."),
        ),
    ),
    Section(
        "On this machine",
        (
            Entry("ls", f"{_HERE}:ls", "List images."),
            Entry("inspect", f"{_HERE}:inspect", "Show all that is known about images."),
            Entry("history", f"{_HERE}:history", "Show how an image's layers came about."),
            Entry("tag", f"{_HERE}:tag", "Give an image one more name."),
            Entry("rm", f"{_HERE}:rm", "Remove images."),
            Entry("prune", f"{_HERE}:prune", "Remove what nothing needs any more."),
        ),
    ),
)

_DAY = 86_400.0


@click.group(cls=LazyGroup, sections=SECTIONS)
def image() -> None:
    """Fetch, make, show and remove images.

    The image `host` is always there: the machine's own /usr, read-only, under a root of its own.
    """


def _store(settings: Settings) -> ImageStore:
    from rootfs.images.store import ImageStore

    return ImageStore(settings.images)


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json", "name"]), default="table", help="Form of output.")
@click.option("-q", "--quiet", is_flag=True, help="Only the images' ids.")
@click.option("--digests", is_flag=True, help="Digests in full.")
@click.pass_obj
def ls(settings: Settings, output: str, quiet: bool, digests: bool) -> None:
    """List images.

    An image whose name went to another one is shown as <none> until `rawpod image prune`.

    With -o json: a list of objects with name (the digest if it has none), digest (of the manifest), id (of the
    configuration), size (bytes, unpacked), created (seconds since 1970), platform, mediaType and layers.
    """
    images = _store(settings).list()
    if quiet:
        for identifier in dict.fromkeys(found.id or found.digest for found in images):
            click.echo(identifier)
    elif output == "json":
        click.echo(json.dumps([_summary(found) for found in images], indent=2))
    elif output == "name":
        click.echo("\n".join(found.name for found in images))
    else:
        rows = [("NAME", "DIGEST", "SIZE", "CREATED")]
        rows += [
            (
                "<none>" if found.name == found.digest else found.name,
                found.digest if digests else found.digest.removeprefix("sha256:")[:12],
                _size(found.size),
                _time(found.created),
            )
            for found in images
        ]
        _print_table(rows)


def _summary(found: Image) -> dict[str, Any]:
    summary = {key: getattr(found, key) for key in ("name", "digest", "size", "created", "id", "platform")}
    return summary | {"mediaType": found.media_type, "layers": list(found.layers)}


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def inspect(settings: Settings, names: tuple[str, ...]) -> None:
    """Show all that is known about images, as a list of JSON objects.

    Beside what `ls -o json` has: repoDigest (what the registry has it under), manifest and config (the documents as
    they came), and of each layer digest, diffID, mediaType, size (bytes as it came), unpackedSize and path.
    """
    store = _store(settings)
    click.echo(json.dumps([_details(store, store.look_up(name)) for name in names], indent=2))


def _details(store: ImageStore, found: Image) -> dict[str, Any]:
    details = _summary(found) | {
        "repoDigest": found.repo_digest or found.digest,
        "lowers": list(map(str, found.lowers)),
    }
    if not found.id:
        return details | {"config": {"config": found.config.to_json()}, "binds": [list(bind) for bind in found.binds]}
    from rootfs.images.ingest import read_blob, read_image

    manifest, config = read_image(store.places, found.digest)
    layers = [
        {
            "digest": layer.digest,
            "diffID": diff_id,
            "mediaType": layer.media_type,
            "size": layer.size,
            "unpackedSize": store.places.size(diff_id),
            "path": str(store.places.layer(diff_id)),
        }
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    ]
    return details | {
        "manifest": json.loads(read_blob(store.places, found.digest)),
        "config": json.loads(read_blob(store.places, found.id)),
        "layers": layers,
    }


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Form of output.")
@click.option("--no-trunc", is_flag=True, help="Commands in full.")
@click.argument("name")
@click.pass_obj
def history(settings: Settings, output: str, no_trunc: bool, name: str) -> None:
    """Show how an image's layers came about, the newest first.

    With -o json: a list of objects with created, createdBy, author, comment, and diffID and size (bytes, unpacked) of
    the layer, null for a step that made none.
    """
    from rootfs.images.ingest import read_image

    store = _store(settings)
    found = store.look_up(name)
    if not found.id:
        raise click.UsageError(f"image {name!r} is the machine's own and has no history")
    _, config = read_image(store.places, found.digest)
    layers = list(config.diff_ids)
    # Not all builders write it, and some write less than there are layers.
    known = [entry.empty for entry in config.history].count(False)
    steps: list[dict[str, Any]] = [_step(store, layers.pop(0), None) for _ in range(len(layers) - known)]
    for entry in config.history:
        steps.append(_step(store, layers.pop(0) if not entry.empty and layers else None, entry))
    steps.reverse()
    if output == "json":
        click.echo(json.dumps(steps, indent=2))
        return
    rows = [("CREATED", "CREATED BY", "SIZE", "COMMENT")]
    for step in steps:
        by = step["createdBy"] if no_trunc or len(step["createdBy"]) <= 60 else step["createdBy"][:57] + "..."
        rows.append((_time(step["created"]), _plain(by), _size(step["size"] or 0), _plain(step["comment"])))
    _print_table(rows)


def _step(store: ImageStore, diff_id: str | None, entry: Any) -> dict[str, Any]:
    return {
        "created": entry.created if entry else 0.0,
        "createdBy": entry.created_by if entry else "",
        "author": entry.author if entry else "",
        "comment": entry.comment if entry else "",
        "diffID": diff_id,
        "size": store.places.size(diff_id) if diff_id else None,
    }


@click.command()
@click.argument("source")
@click.argument("target")
@click.pass_obj
def tag(settings: Settings, source: str, target: str) -> None:
    """Give the image SOURCE, a name or an id, the name TARGET as well. An image that had the name loses it."""
    click.echo(_store(settings).tag(source, target).name)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Take the name of an image in use; of an id with several names, all.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def rm(settings: Settings, force: bool, names: tuple[str, ...]) -> None:
    """Remove images: the name, and with the last name everything that no other image needs.

    One that a container is made of stays, and so does the container. With -f its name goes, and its layers when the
    container is gone and `rawpod image prune` is called.
    """
    store = _store(settings)
    for name in names:
        for removed in store.remove(name, lambda: stacks_in_use(settings), force=force):
            click.echo(removed)


@click.command()
@click.option(
    "-a", "--all", "unused", is_flag=True, help="Images with a name as well, if no container is made of them."
)
@click.pass_obj
def prune(settings: Settings, unused: bool) -> None:
    """Remove images without a name, and layers and blobs that nothing needs.

    What a container is made of stays, and what is being pulled or loaded just now. An unfinished download that nobody
    works on is kept for a day, to be resumed; with -a it goes as well.
    """
    pruned = _store(settings).prune(lambda: stacks_in_use(settings), unused=unused, older_than=0.0 if unused else _DAY)
    for name in pruned.images:
        click.echo(name)
    counts = f"{len(pruned.layers)} layers, {len(pruned.blobs)} blobs, {len(pruned.unfinished)} unfinished downloads"
    click.echo(f"{counts}: {_size(pruned.size)}")


def stacks_in_use(settings: Settings) -> frozenset[tuple[str, ...]]:
    """What containers of this instance are made of, running or not: for each the digests of its layers, topmost first.

    Read from the containers' bundles, which are written before their roots are mounted.
    """
    import re

    found: set[tuple[str, ...]] = set()
    for bundle in settings.pods.glob("*/containers/*/config.json"):
        try:
            text = bundle.read_text()
        except FileNotFoundError:
            continue  # its pod went meanwhile
        for lowers in re.findall(r'"lowerdir=((?:[^"\\]|\\.)*)"', text):
            layers = re.findall(r"/(?:layers/|host/sha256-)([0-9a-f]{64})", lowers)
            found.add(tuple(f"sha256:{layer}" for layer in layers))
    return frozenset(found)


def _print_table(rows: list[tuple[str, str, str, str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _plain(text: str) -> str:
    """Words of strangers, for a terminal: no control characters, no line's end."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _time(seconds: float) -> str:
    from time import localtime, strftime

    return strftime("%Y-%m-%d %H:%M", localtime(seconds)) if seconds else "unknown"
