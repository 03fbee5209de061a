"""`rawpod run`: a container by hand, with a monitor of its own in the foreground or behind it."""

import os
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import click

from kernel.errors import NotFound, RawpodError
from runtime.settings import Settings

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

# A payload may ignore what it is sent, as any first process of a pid namespace does by default (pid_namespaces(7)).
_PATIENCE = 3


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--rm", "remove", is_flag=True, help="Remove the pod with its logs when it ends.")
@click.option("-d", "--detach", is_flag=True, help="In the background; prints the pod's uid.")
@click.option("--name", metavar="N", help="Name of the pod; made up if not given.")
@click.option("-i", "--interactive", is_flag=True, help="Pass our standard input on.")
@click.option("-t", "--tty", is_flag=True, help="With a terminal of its own.")
@click.option("-m", "--memory", metavar="64M", help="Memory at most, as Kubernetes or Docker write it.")
@click.option("--cpus", metavar="0.5", help="CPUs at most.")
@click.option("--pids", type=int, metavar="N", help="Tasks at most.")
@click.option("-v", "--volume", "volumes", multiple=True, metavar="SRC:DST[:ro]", help="A directory of the host.")
@click.option(
    "-p", "--publish", "ports", multiple=True, metavar="[IP:]PORT:PORT[/udp]", help="A port, reachable at the host."
)
@click.option("-e", "--env", multiple=True, metavar="K=V", help="A variable.")
@click.option("-w", "--workdir", metavar="DIR", help="Directory to run in.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="By name or number.")
@click.option("--entrypoint", metavar="PROGRAM", help="Instead of the image's entrypoint and cmd; '' for none.")
@click.option("--stop-signal", metavar="SIG", help="What asks it to end; the image's, or TERM.")
@click.option("--no-healthcheck", is_flag=True, help="Leave the image's health check out.")
@click.option("--network", type=click.Choice(["pod", "host", "none"]), default="pod", help="Which network; pod.")
@click.option("--userns", type=click.Choice(["host", "auto"]), default="host", help="auto: 65,536 user ids of its own.")
@click.option(
    "--security-opt",
    "security_options",
    multiple=True,
    metavar="seccomp=FILE",
    help="seccomp=FILE|unconfined|default, no-new-privileges=true|false; as Docker has it.",
)
@click.option(
    "--pull",
    type=click.Choice(["always", "missing", "never"]),
    default="missing",
    help="When to ask the image's registry; if it is missing.",
)
@click.option("--hostname", metavar="H", help="Host name; the pod's name if not given.")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(
    settings: Settings, /, *, remove: bool, detach: bool, name: str | None, interactive: bool, pull: str, **options: Any
) -> int:
    """Run a command in a container, without a supervisor.

    The exit status is the command's, 128 + n if signal n ended it, 127 if it was not found, 126 if it cannot be
    executed, 125 for failures of rawpod itself. Signals are passed on; the third SIGINT or SIGTERM kills.
    """
    from runtime.pod import directory, objects
    from runtime.pod.run_options import parse_security_options, pod_from_run_options

    uid = new_uid()
    profile, options["no_new_privileges"] = parse_security_options(options.pop("security_options"))
    options["unconfined"] = profile == "unconfined"
    seccomp = None if profile in ("", "unconfined") else _profile(profile)
    options["healthcheck"] = not options.pop("no_healthcheck")
    options["cpus"] = options["cpus"] or None
    pod = pod_from_run_options(name=name or f"{_stem(options['image'])}-{uid[:5]}", stdin=interactive, **options)
    pod.metadata.uid = uid
    if name is not None:
        _check_unused(settings, name)
    bring_image(settings, options["image"], pull)
    directory.create(settings, uid, objects.dump(pod), seccomp=seccomp)
    if detach:
        return _detached(settings, uid, remove)
    return _foreground(settings, uid, remove, interactive, options["tty"])


def bring_image(settings: Settings, image: str, pull: str) -> None:
    """See to it that the image is in the store: `pull` is "always", "missing" or "never". Raises NotFound."""
    from rootfs.images.store import HOST, ImageStore

    if image == HOST:
        return
    if pull != "always":
        try:
            ImageStore(settings.images).get(image)
        except NotFound:
            if pull == "never":
                raise
        else:
            return
    _pull(settings, image)


def _pull(settings: Settings, image: str) -> None:
    """In a process of its own: this one becomes a monitor, which has no use for what a pull loads."""
    from runtime.pod.loop import Loop
    from runtime.pod.pulling import Pull
    from runtime.pod.pullpolicy import Registries

    loop = Loop()
    outcome: list[RawpodError | None] = []
    interrupts: list[int] = []

    def done(error: RawpodError | None) -> None:
        outcome.append(error)
        loop.stop()

    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # It has the terminal's interrupt as well, and has to leave the terminal as it was.
        loop.on_signals((signal.SIGINT,), interrupts.append)
        Pull(loop, settings, image, Registries(), done, _fetch_and_show)
        loop.run()
    finally:
        loop.close()
    if interrupts:
        raise KeyboardInterrupt
    if outcome[0] is not None:
        raise outcome[0]


def _fetch_and_show(settings: Settings, image: str, _registries: Any) -> None:
    from rootfs.registry.fetch import fetch
    from runtime.cli import image_progress

    signal.signal(signal.SIGINT, signal.default_int_handler)
    progress = image_progress.choose("auto", False)
    try:
        with progress:
            fetch(settings.images, image, registries=settings.registries, progress=progress, note=progress.note)
    except KeyboardInterrupt:
        raise RawpodError("the pull was interrupted") from None


def _profile(path: str) -> bytes:
    """A seccomp profile's file, read and found right. Raises BadInput."""
    from runtime.pod import profiles
    from runtime.pod.compile import DEFAULT_CAPABILITIES

    profiles.read(Path(path), DEFAULT_CAPABILITIES)
    return Path(path).read_bytes()


def new_uid() -> str:
    """A random uid, as a version 4 UUID (RFC 9562); the uuid module alone takes 3 ms to import."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _stem(image: str) -> str:
    """A pod's name from an image's: the last component, without the tag."""
    last = image.rpartition("/")[2].partition(":")[0].partition("@")[0]
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in last.lower())
    return kept.strip("-")[:50] or "pod"


def _check_unused(settings: Settings, name: str) -> None:
    from kernel.errors import Conflict
    from runtime.pod import directory

    for uid, status in directory.statuses(settings).items():
        if directory.pod_name(status) == name and status["rawpod"].get("owner") == "run":
            raise Conflict(f"pod {name!r} exists: {uid}", remedy=f"`rawpod rm -f {name}`, or another name")


def _foreground(settings: Settings, uid: str, remove: bool, interactive: bool, tty: bool) -> int:
    from runtime.pod import control, sandbox
    from runtime.pod.attempt import Show
    from runtime.pod.loop import Loop
    from runtime.pod.monitor import Monitor
    from runtime.pod.streams import Sink

    sinks: list[Sink] = []

    def show(loop: Loop) -> Show:
        stdout, stderr = Sink(loop, 1), Sink(loop, 2)
        sinks.extend((stdout, stderr))
        return Show(0 if interactive else None, stdout, stderr, _fit_console)

    succeeded = False
    try:
        listener = control.listen(settings.pod(uid))
        monitor = Monitor(settings, uid, listener, owner="run", foreground=True, show=show)
        _pass_signals_on(monitor)
        with _raw(interactive and tty):
            monitor.run()
        for sink in sinks:
            sink.finish()
        succeeded = True
    finally:
        if remove or not succeeded:
            _remove(settings, uid, quietly=not succeeded)
        else:
            sandbox.tidy(settings)
    return monitor.exit_code


def _remove(settings: Settings, uid: str, *, quietly: bool) -> None:
    """Take the pod away; after a failure, that failure is what the user is to see."""
    from runtime.pod import sandbox

    with suppress(RawpodError, OSError) if quietly else nullcontext():
        sandbox.destroy(settings, uid)
        sandbox.tidy(settings)


def _raw(wanted: bool) -> Any:
    if not wanted:
        return nullcontext()
    from runtime.pod.terminal import raw_mode

    return raw_mode(0)


def _fit_console(console: int) -> None:
    from runtime.pod.terminal import copy_size

    copy_size(0, console)


def _pass_signals_on(monitor: Any) -> None:
    asked = 0

    def on_signal(number: int) -> None:
        nonlocal asked
        if number == signal.SIGCHLD:
            monitor.reap()
        elif number == signal.SIGWINCH:
            monitor.runners[0].copy_size(0)
        else:
            asked += number in (signal.SIGINT, signal.SIGTERM)
            if asked >= _PATIENCE:
                monitor.stop(0.0)
            with suppress(RawpodError):
                monitor.runners[0].signal(number)

    # What comes when the loop is over must not cut the taking down short: the loop gives these back as ignored.
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    monitor.loop.on_signals((*_FORWARDED, signal.SIGWINCH, signal.SIGCHLD), on_signal)


def _detached(settings: Settings, uid: str, remove: bool) -> int:
    """Leave the pod to a monitor of its own, once its container runs. Raises what kept it from running."""
    from runtime.pod import sandbox, spawner

    launched = False
    try:
        spawner.launch(settings, uid, "run", remove=remove)
        _wait_started(settings.pod(uid))
        launched = True
    finally:
        if not launched:
            with suppress(RawpodError, OSError):
                sandbox.destroy(settings, uid)
                sandbox.tidy(settings)
    click.echo(uid)
    sys.stdout.flush()
    return 0


def _wait_started(pod: Path) -> None:
    """Until the container has left its waiting state. Raises what kept it from running."""
    from runtime.cli.pods import started_error
    from runtime.pod import control, directory

    status: dict[str, Any] | None = None
    with suppress(NotFound, BrokenPipeError), control.connect(pod) as connection:
        connection.send(b'{"do": "watch"}')
        while message := control.receive(connection):
            status = message["status"]
            if started_error(status) or any("waiting" not in one["state"] for one in status["containerStatuses"]):
                break
    # A pod that is over before we could look has left its last word, unless it has removed itself.
    status = directory.read_status(pod) or status
    if status is None and (pod / "monitor.log").exists():
        raise RawpodError(f"the pod's monitor ended: {(pod / 'monitor.log').read_text().strip()}")
    if status is not None and (error := started_error(status)):
        raise error
