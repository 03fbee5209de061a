"""`rawpod pull` and `rawpod push`: images from and to registries."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kernel.errors import RawpodError
from runtime.settings import Settings

if TYPE_CHECKING:
    from runtime.cli.image_progress import Quiet

_Command = Callable[..., None]


def _options(command: _Command) -> _Command:
    """What pull and push have in common."""
    for option in (
        click.option("--insecure", is_flag=True, help="Accept any certificate, and HTTP where there is no TLS."),
        click.option(
            "--authfile", type=click.Path(path_type=Path), metavar="FILE", help="Credentials; others are not looked at."
        ),
        click.option(
            "--progress",
            "form",
            type=click.Choice(["auto", "plain", "json"]),
            default="auto",
            help="Bars on a terminal, a line for each change, or an object a line on standard output.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("reference", metavar="NAME[:TAG][@DIGEST]")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Another platform than this machine's, as linux/arm64.")
@_options
@click.pass_obj
def pull(
    settings: Settings,
    reference: str,
    platform: str | None,
    quiet: bool,
    form: str,
    authfile: Path | None,
    insecure: bool,
) -> None:
    """Fetch an image from a registry.

    Names are read as Docker reads them: nginx is docker.io/library/nginx:latest. What is here already is not fetched
    again; a pull that was cut off goes on where it stopped. Short names, mirrors, and registries without TLS are
    configured in /etc/rawpod/registries.toml; credentials are those that docker login or podman login wrote.

    Prints the image's name and its digest in the registry.
    """
    from rootfs.images.platform import parse_platform
    from rootfs.registry.fetch import fetch
    from runtime.cli import image_progress

    progress = image_progress.choose(form, quiet)

    def work() -> tuple[str, str]:
        pulled = fetch(
            settings.images,
            reference,
            registries=settings.registries,
            authfile=authfile,
            platform=parse_platform(platform) if platform else None,
            insecure=insecure,
            progress=progress,
            note=progress.note,
        )
        return pulled.image.name, pulled.digest

    _run(progress, work)


@click.command()
@click.argument("name", metavar="IMAGE")
@click.argument("target", metavar="[NAME[:TAG]]", required=False)
@_options
@click.pass_obj
def push(
    settings: Settings, name: str, target: str | None, quiet: bool, form: str, authfile: Path | None, insecure: bool
) -> None:
    """Send an image to a registry: to the one in its name, or as another name.

    What the registry has already is not sent. Of an image that came for several platforms, the one that is here goes.

    Prints the image's name and its digest in the registry.
    """
    from rootfs.registry.send import send
    from runtime.cli import image_progress

    progress = image_progress.choose(form, quiet)

    def work() -> tuple[str, str]:
        pushed = send(
            settings.images,
            name,
            target,
            registries=settings.registries,
            authfile=authfile,
            insecure=insecure,
            progress=progress,
            note=progress.note,
        )
        return pushed.name, pushed.digest

    _run(progress, work)


def _run(progress: Quiet, work: Callable[[], tuple[str, str]]) -> None:
    """Do the work and show what comes of it: the image's name and its digest in the registry."""
    from runtime.cli.image_progress import Json

    # As Ctrl-C, which ends workers and keeps what is there of a layer. asyncio handles that in its own way, by
    # cancelling: an exception out of nowhere would meet whichever callback runs just then.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with progress:
            name, digest = work()
    except RawpodError as error:
        if isinstance(progress, Json):
            progress.say(error=str(error), reason=getattr(error, "reason", type(error).__name__))
        raise
    if isinstance(progress, Json):
        progress.say(image=name, digest=digest)
    else:
        click.echo(f"{name} {digest}")
