"""`rawpod cp`: files between this machine and a container."""

import click

from runtime.settings import Settings

_DESCRIPTORS = 8192  # two for each directory that lies in another


@click.command()
@click.option("-a", "--archive", is_flag=True, help="Keep owners by number; else copies are root's, or yours outside.")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what SRC links to, not the link.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of what was copied.")
@click.option("-c", "--container", metavar="NAME", help="Which container of the pod.")
@click.option("--pause/--no-pause", default=None, help="Freeze a running container meanwhile; yes, but not for -.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.pass_obj
def cp(
    settings: Settings,
    archive: bool,
    follow_link: bool,
    quiet: bool,
    container: str | None,
    pause: bool | None,
    source: str,
    target: str,
) -> None:
    """Copy files and directories into a container, POD[/CONTAINER]:PATH, or out of it.

    \b
        rawpod cp web:/var/log/app.log .          a file out of a container
        rawpod cp site/. web:/srv                 what is in a directory, into it
        rawpod cp web:/etc - | tar -t             as a tar archive
        tar -c *.conf | rawpod cp - web:/etc/app  from a tar archive, plain or in gzip or zstd

    As with `docker cp`: a directory is copied into a DST that exists, and becomes a DST that does not; its parent has
    to exist. SRC/. stands for what is in the directory. Paths in the container begin at its root. The container may
    run or have ended; one that runs is frozen while it is copied, so that nothing changes under the copy. Volumes are
    part of it; /proc, /sys and the like are not.
    """
    from resource import RLIMIT_NOFILE, getrlimit, setrlimit

    from rootfs.copying import rules
    from runtime.cli.pods import load
    from runtime.pod import copying, directory

    here, there = rules.parse(source), rules.parse(target)
    rules.check_sides(here, there)
    inside = here if here.container else there
    uid, named, status = load(settings, inside.container)
    name = directory.choose_container(status, container or named)
    _, most = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (min(_DESCRIPTORS, most), most))
    if pause is None:
        # An archive may come from a process of the container itself, or go to one.
        pause = rules.STREAM not in (source, target)
    options = copying.Options(archive, follow_link)
    with copying.view(settings.pod(uid) / "containers" / name, status, pause=pause) as view:
        if view.warning:
            click.echo(f"rawpod: {view.warning}", err=True)
        copy = copying.copy_out if inside is here else copying.copy_in
        done = copy(view, here, there, options)
    for note, count in done.notes.items():
        click.echo(f"rawpod: {note}" + (f" ({count} times)" if count > 1 else ""), err=True)
    if not quiet and target != rules.STREAM:
        click.echo(f"copied {done.size} bytes to {target}", err=True)
