"""`rawpod exec`: a further process in a running container."""

import os
import signal
from contextlib import nullcontext

import click

from kernel.errors import BadInput, RawpodError
from kernel.pidfd import ExitStatus, wait_pidfd
from runtime import exec as runtime_exec
from runtime import spec, state
from runtime.cli.pods import load
from runtime.pod import directory
from runtime.pod.loop import Loop
from runtime.pod.streams import InputPump, OutputPump, Sink
from runtime.settings import Settings

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@click.command(name="exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@click.option("-i", "--interactive", is_flag=True, help="Pass our standard input on.")
@click.option("-t", "--tty", is_flag=True, help="With a terminal of its own.")
@click.option("-e", "--env", "variables", multiple=True, metavar="K=V", help="A variable more.")
@click.option("-w", "--workdir", metavar="DIR", help="Directory to run in.")
@click.argument("name", metavar="POD[/CONTAINER]")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(
    settings: Settings,
    interactive: bool,
    tty: bool,
    variables: tuple[str, ...],
    workdir: str | None,
    name: str,
    command: tuple[str, ...],
) -> int:
    """Run a command in a running container, as its user. The exit status is the command's."""
    uid, named, status = load(settings, name)
    container = directory.choose_container(status, named)
    bundle = settings.pod(uid) / "containers" / container
    config = spec.load((bundle / "config.json").read_bytes())
    process = config.process
    if process is None:
        raise RawpodError(f"container {container!r} of pod {uid!r} has no process in its config.json")
    process.args, process.terminal = list(command), tty
    process.cwd = workdir or process.cwd
    for variable in variables:
        key, equals, _ = variable.partition("=")
        if not key or not equals:
            raise BadInput(f"variable {variable!r} is not of the form K=V")
        process.env = [entry for entry in process.env if not entry.startswith(f"{key}=")] + [variable]
    cgroup = status["rawpod"]["containers"][container]["cgroup"]
    return _run(bundle, cgroup, process, config.linux, interactive).shell


def _run(
    bundle: os.PathLike[str], cgroup: str, process: spec.Process, linux: spec.Linux | None, interactive: bool
) -> ExitStatus:
    """Start the process and copy its streams until it ends."""
    from pathlib import Path

    from cgroups.cgroup import Cgroup

    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    stdin = os.pipe2(os.O_CLOEXEC) if interactive else (null, -1)
    stdout_pipe, stderr_pipe = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    theirs = (stdin[0], stdout_pipe[1], stderr_pipe[1])
    record = state.load(Path(bundle))
    child, console = runtime_exec.exec_in(record, Cgroup(cgroup), process, theirs, linux=linux)
    for fd in {null, *theirs}:
        os.close(fd)
    loop = Loop()
    stdout, stderr = Sink(loop, 1), Sink(loop, 2)
    pumps = [
        OutputPump(loop, console if console is not None else stdout_pipe[0], _nowhere, stdout, _nothing),
        OutputPump(loop, stderr_pipe[0], _nowhere, stderr, _nothing),
    ]
    if interactive:
        InputPump(loop, 0, stdin[1] if console is None else os.dup(console), close_at_end=console is None)
    loop.add(child.pidfd, loop.stop)

    def on_signal(number: int) -> None:
        if number == signal.SIGWINCH and console is not None:
            from runtime.pod.terminal import copy_size

            copy_size(0, console)
        elif number in _FORWARDED:
            signal.pidfd_send_signal(child.pidfd, number)

    loop.on_signals((*_FORWARDED, signal.SIGWINCH), on_signal)
    on_signal(signal.SIGWINCH)
    with _terminal(console is not None and interactive):
        loop.run()
    for pump in pumps:
        pump.drain()
    stdout.finish()
    stderr.finish()
    return wait_pidfd(child.pidfd)


def _terminal(wanted: bool) -> "nullcontext[None]":
    if not wanted:
        return nullcontext()
    from runtime.pod.terminal import raw_mode

    return raw_mode(0)  # type: ignore[return-value]


def _nowhere(_data: bytes) -> None:
    """What a command prints is for its caller alone: it is not logged."""


def _nothing() -> None:
    """The process's end is what counts."""
