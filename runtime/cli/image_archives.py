"""`rawpod image load`, `save`, `import`, `export`, `commit`: images from and to files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kernel.errors import BadInput, NotFound, NotSupported
from runtime.settings import Settings

if TYPE_CHECKING:
    from rootfs.images.image import ImageConfig

_STREAM = "-"
_Command = Callable[..., None]


@click.command()
@click.option("-i", "--input", "source", default=_STREAM, metavar="FILE", help="A directory or a file; standard input.")
@click.option("--name", default="", metavar="NAME", help="Name for the image, if there is only one.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of an image for several platforms; this machine's.")
@click.pass_obj
def load(settings: Settings, source: str, name: str, platform: str | None) -> None:
    """Load images from an OCI layout (a directory or a tar) or from a docker-archive.

    \b
        rawpod image load -i nginx.tar
        podman save nginx | rawpod image load
        rawpod image load -i layout/ --name nginx:1.27

    A tar may be compressed with gzip or zstd. Names are those in the archive; an image that has none there is to be
    had by the digest that is printed. A name that another image has goes to the loaded one.
    """
    from rootfs.images.load import load as load_images
    from rootfs.images.platform import here, parse_platform
    from rootfs.images.store import ImageStore

    chosen = parse_platform(platform) if platform else here()
    if source == _STREAM and os.isatty(0):
        raise BadInput("an archive does not come from a terminal", remedy="-i FILE, or redirect standard input")
    with ImageStore(settings.images).ingest() as ingest:
        for found in load_images(ingest, 0 if source == _STREAM else Path(source), chosen, name=name):
            click.echo(f"{found.name} {found.digest}" if found.name != found.digest else found.digest)


@click.command()
@click.option(
    "-o", "--output", default=_STREAM, metavar="FILE", help="A file, or the layout's directory; standard output."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["oci-archive", "oci-dir", "docker-archive"]),
    default="oci-archive",
    show_default=True,
    help="A tar of an OCI layout, the layout as a directory, or what `docker save` used to write.",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def save(settings: Settings, output: str, form: str, names: tuple[str, ...]) -> None:
    """Save images as an OCI layout or a docker-archive.

    \b
        rawpod image save -o nginx.tar nginx:1.27
        rawpod image save nginx:1.27 redis | zstd > both.tar.zst
        rawpod image save --format oci-dir -o layout/ nginx:1.27

    In an OCI layout every blob is as it came, so that all digests stay what they are. In a docker-archive layers are
    uncompressed: ids of images stay, digests of manifests do not.
    """
    from rootfs.images.save import DirectoryTarget, TarTarget, save_docker, save_layout
    from rootfs.images.store import HOST, ImageStore

    if HOST in names:
        raise NotSupported("image 'host' is the machine's own /usr and cannot be saved")
    if form == "oci-dir" and output == _STREAM:
        raise BadInput("a layout's directory needs a name", remedy="-o DIRECTORY")
    store = ImageStore(settings.images)
    images = [store.find(name) for name in names]
    with store.ingest() as ingest:
        if form == "oci-dir":
            save_layout(store.places, ingest, images, DirectoryTarget(Path(output)))
            return
        with _written(output) as fd:
            (save_docker if form == "docker-archive" else save_layout)(store.places, ingest, images, TarTarget(fd))


def _config_options(command: _Command) -> _Command:
    """What an image runs by default, for import and commit."""
    for option in (
        click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="As in a Dockerfile."),
        click.option("--entrypoint", metavar="WORDS", help="The program; words, or a JSON array."),
        click.option("--cmd", metavar="WORDS", help="Its arguments by default; words, or a JSON array."),
        click.option("-e", "--env", multiple=True, metavar="K=V", help="A variable."),
        click.option("-w", "--workdir", metavar="DIR", help="Directory to run in."),
        click.option("-u", "--user", metavar="USER[:GROUP]", help="Who runs it."),
        click.option("-l", "--label", "labels", multiple=True, metavar="K=V", help="A label."),
        click.option("-a", "--author", default="", help="Who made it."),
        click.option("-m", "--message", default="", help="What for."),
    ):
        command = option(command)
    return command


def _changed(config: ImageConfig, options: dict[str, Any]) -> ImageConfig:
    from rootfs.images import changes

    config = changes.apply(config, options["changes"])
    try:
        if options["entrypoint"] is not None:
            config = config._replace(entrypoint=changes.words(options["entrypoint"]), cmd=())
        if options["cmd"] is not None:
            config = config._replace(cmd=changes.words(options["cmd"]))
    except ValueError as error:
        raise BadInput(f"--entrypoint or --cmd: {error}") from None
    for what in ("env", "labels"):
        if not all(text.find("=") > 0 for text in options[what]):
            raise BadInput(f"--{what.removesuffix('s')} is not NAME=VALUE")
    config = changes.set_env(config, dict(text.partition("=")[::2] for text in options["env"]))
    config = config._replace(labels={**config.labels, **dict(text.partition("=")[::2] for text in options["labels"])})
    if options["workdir"] is not None:
        config = config._replace(working_dir=options["workdir"])
    return config if options["user"] is None else config._replace(user=options["user"])


@click.command("import")
@click.argument("name")
@click.argument("file")
@_config_options
@click.pass_obj
def import_(settings: Settings, /, name: str, file: str, **options: Any) -> None:
    """Make the root file system in FILE the image NAME.

    FILE is a tar of a root directory, plain or compressed with gzip or zstd, - for standard input. It becomes the
    image's only layer as it is. An image that had the name loses it.

    \b
        tar -C rootfs -c . | rawpod image import app - --entrypoint /usr/bin/app -e LANG=C.UTF-8
        rawpod image import app rootfs.tar.gz -c 'CMD ["serve"]' -c 'EXPOSE 80/tcp' -c 'USER www-data'
    """
    from rootfs.images.store import ImageConfig, ImageStore

    config = _changed(ImageConfig(), options)
    source = sys.stdin.buffer if file == _STREAM else Path(file)
    made = ImageStore(settings.images).import_tar(
        name, source, author=options["author"], comment=options["message"], **config._asdict()
    )
    click.echo(f"{made.name} {made.digest}")


@click.command()
@click.option("-o", "--output", default=_STREAM, metavar="FILE", help="A file; standard output.")
@click.option("--image", is_flag=True, help="NAME is an image, even if a container has it.")
@click.option("--pause/--no-pause", default=True, show_default=True, help="Freeze a running container meanwhile.")
@click.argument("name", metavar="POD[/CONTAINER]|IMAGE")
@click.pass_obj
def export(settings: Settings, output: str, image: bool, pause: bool, name: str) -> None:
    """Write the root file system of a container as it is now, or of an image, as a tar.

    Volumes are not part of it. `rawpod image import` makes an image of one layer of it.
    """
    from rootfs.images.store import ImageStore
    from runtime.pod import committing, directory

    if not image:
        try:
            directory.find(settings, name)
        except NotFound:
            image = True
    if image:
        found = ImageStore(settings.images).look_up(name)
        with _written(output) as fd:
            committing.export_image(found, fd)
        return
    with committing.container(settings, name, pause=pause) as layers, _written(output) as fd:
        _warn(layers.warning)
        committing.export_container(layers, fd)


@click.command()
@click.option("--pause/--no-pause", default=True, show_default=True, help="Freeze a running container meanwhile.")
@click.argument("container", metavar="POD[/CONTAINER]")
@click.argument("name", default="")
@_config_options
@click.pass_obj
def commit(settings: Settings, /, container: str, name: str, pause: bool, **options: Any) -> None:
    """Make what a container wrote a layer on top of its image, and both together the image NAME.

    Volumes are not part of it. Without NAME the image is to be had by the digest that is printed.

    \b
        rawpod image commit web web:patched -m 'apt install curl' -c 'CMD ["serve"]'
    """
    from rootfs.images.store import ImageStore
    from runtime.pod import committing

    store = ImageStore(settings.images)
    with committing.container(settings, container, pause=pause) as layers:
        _warn(layers.warning)
        made = committing.commit(
            store,
            layers,
            name,
            lambda config: _changed(config, options),
            author=options["author"],
            message=options["message"],
        )
    click.echo(f"{made.name} {made.digest}" if name else made.digest)


def _warn(warning: str) -> None:
    if warning:
        click.echo(f"rawpod: {warning}", err=True)


@contextmanager
def _written(output: str) -> Iterator[int]:
    """A descriptor to write a tar to. A regular file is there whole, or not at all."""
    if output == _STREAM:
        if os.isatty(1):
            raise BadInput("a tar archive is not for a terminal", remedy="-o FILE, or redirect standard output")
        sys.stdout.flush()
        yield 1
        return
    path = Path(output)
    if path.exists() and not path.is_file():
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield fd
        os.fchmod(fd, 0o644)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
