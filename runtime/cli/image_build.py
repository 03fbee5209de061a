"""`rawpod image build-base`: an image made of Debian packages, without a registry."""

from __future__ import annotations

import os

import click

from kernel.errors import BadInput
from runtime.settings import Settings


@click.command("build-base")
@click.argument("name")
@click.option("--release", required=True, metavar="NAME", help="Debian's name for it, as trixie.")
@click.option("--include", multiple=True, metavar="PACKAGE,…", help="Packages to install; may be repeated.")
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="Where packages come from, also a line of sources.list(5); Debian's own if not given.",
)
@click.option("--variant", default="minbase", metavar="V", help="How much is there beside: mmdebstrap's word; minbase.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show what mmdebstrap says.")
@click.pass_obj
def build_base(
    settings: Settings,
    name: str,
    release: str,
    include: tuple[str, ...],
    mirrors: tuple[str, ...],
    variant: str,
    quiet: bool,
) -> None:
    """Make the image NAME of a Debian release and further packages, with mmdebstrap.

    The image has one layer, runs a shell, and is the same to the digest as long as the release's packages are: times
    are cut at the date of the release's index, or at $SOURCE_DATE_EPOCH. Proxies are taken from the environment.
    """
    from rootfs.images.debian import Base
    from rootfs.images.debian import build_base as build
    from rootfs.images.store import ImageStore

    packages = tuple(package for text in include for package in text.split(",") if package)
    store = ImageStore(settings.images)
    with store.ingest() as ingest:
        made = build(
            ingest,
            store.places,
            name,
            Base(release, packages, mirrors, variant),
            source_date=_source_date(),
            tell=(lambda _: None) if quiet else (lambda line: click.echo(line, err=True)),
        )
    click.echo(f"{made.name} {made.digest}")


def _source_date() -> int | None:
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise BadInput(f"SOURCE_DATE_EPOCH {text[:60]!r} is not a number of seconds since 1970")
    return int(text)
