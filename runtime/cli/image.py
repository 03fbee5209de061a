"""`rawpod image import`, `ls`, `rm`: root file systems that containers are made from."""

import click

from runtime.cli.image_registry import pull, push
from runtime.settings import Settings


@click.group()
def image() -> None:
    """Import, list and remove images.

    The image `host` is always there: the machine's own /usr, read-only, under a root of its own.
    """


image.add_command(pull)
image.add_command(push)


@image.command("import")
@click.argument("name")
@click.argument("file", type=click.Path())
@click.pass_obj
def import_(settings: Settings, name: str, file: str) -> None:
    """Make the root file system in FILE the image NAME.

    FILE is a tar of a root directory, plain or compressed with gzip or zstd. An image that had the name loses it.
    """
    from pathlib import Path

    from rootfs.images.store import ImageStore

    made = ImageStore(settings.images).import_tar(name, Path(file))
    click.echo(f"{made.name} {made.digest}")


@image.command()
@click.option("-o", "--output", type=click.Choice(["table", "json", "name"]), default="table", help="Form of output.")
@click.pass_obj
def ls(settings: Settings, output: str) -> None:
    """List images.

    With -o json: a list of objects with name, digest, size (bytes) and created (seconds since 1970).
    """
    from rootfs.images.store import ImageStore

    images = ImageStore(settings.images).list()
    if output == "json":
        import json

        keys = ("name", "digest", "size", "created")
        click.echo(json.dumps([{key: getattr(found, key) for key in keys} for found in images], indent=2))
        return
    if output == "name":
        click.echo("\n".join(found.name for found in images))
        return
    rows = [("NAME", "DIGEST", "SIZE", "CREATED")]
    rows += [
        (found.name, found.digest.removeprefix("sha256:")[:12], _size(found.size), _time(found.created))
        for found in images
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@image.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def rm(settings: Settings, names: tuple[str, ...]) -> None:
    """Remove images. One that a container is made of stays, and so does the container."""
    from rootfs.images.store import ImageStore

    store = ImageStore(settings.images)
    for name in names:
        store.remove(name, lambda: stacks_in_use(settings))
        click.echo(name)


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


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _time(seconds: float) -> str:
    from time import localtime, strftime

    return strftime("%Y-%m-%d %H:%M", localtime(seconds))
