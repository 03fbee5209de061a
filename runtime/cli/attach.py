"""`rawpod attach`: a running container's own streams, by way of its monitor."""

import json
import os
import signal
import socket
from contextlib import nullcontext

import click

from kernel.errors import BadInput, RawpodError
from runtime.cli.pods import load
from runtime.pod import control, directory
from runtime.pod.loop import Loop
from runtime.pod.streams import OutputPump, Sink
from runtime.settings import Settings


@click.command()
@click.option("-i", "--stdin", "interactive", is_flag=True, help="Pass our standard input to the container's.")
@click.option("-t", "--tty", is_flag=True, help="Our terminal is the container's: keys and its size are passed on.")
@click.option("-c", "--container", metavar="NAME", help="Which container of the pod.")
@click.argument("name", metavar="POD[/CONTAINER]")
@click.pass_obj
def attach(settings: Settings, interactive: bool, tty: bool, container: str | None, name: str) -> int:
    """Show what a running container writes from now on, and with -i write to its standard input.

    Ends with this run of the container. Without -t an interrupt ends the command alone, never the container.
    """
    uid, named, status = load(settings, name.removeprefix("pods/").removeprefix("pod/"))
    chosen = directory.choose_container(status, container or named)
    if tty and not _has_terminal(settings, uid, chosen):
        raise BadInput(
            f"container {chosen!r} has no terminal", remedy="leave out -t, or give the container `tty: true`"
        )
    connection = control.connect(settings.pod(uid))
    loop = Loop()
    streams = (1,) if tty else (1, 2)
    readers = _hand_over(connection, chosen, len(streams), interactive)
    sinks = [Sink(loop, fd) for fd in streams]
    pumps: list[OutputPump] = []

    def ended() -> None:
        if not any(pump.open for pump in pumps):
            loop.stop()

    pumps += [
        OutputPump(loop, reader, lambda _data: None, sink, ended) for reader, sink in zip(readers, sinks, strict=True)
    ]
    if tty:
        loop.on_signals((signal.SIGWINCH,), lambda _number: _resize(settings, uid, chosen))
        _resize(settings, uid, chosen)
    with _raw(tty and interactive):
        loop.run()
    for sink in sinks:
        sink.finish()
    connection.close()
    return 0


def _has_terminal(settings: Settings, uid: str, container: str) -> bool:
    spec = json.loads((settings.pod(uid) / directory.POD).read_bytes())["spec"]
    every = [one for key in ("containers", "initContainers", "ephemeralContainers") for one in spec.get(key) or ()]
    return any(one["name"] == container and one.get("tty", False) for one in every)


def _hand_over(connection: socket.socket, container: str, outputs: int, interactive: bool) -> list[int]:
    """Gives the monitor its ends of the pipes; ours of the outputs. Standard input becomes the pipe's other end."""
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(outputs)]
    theirs = [writer for _, writer in pipes]
    stdin = os.pipe2(os.O_CLOEXEC) if interactive else None
    if stdin is not None:
        theirs.append(stdin[0])
    request = {"do": "attach", "container": container, "outputs": outputs, "stdin": interactive}
    socket.send_fds(connection, [json.dumps(request).encode()], theirs)
    for fd in theirs:
        os.close(fd)
    answer = control.receive(connection)
    if answer is None or "error" in answer:
        raise RawpodError(str((answer or {}).get("error", "the monitor ended without an answer")))
    if stdin is not None:
        _copy_input(stdin[1])
    return [reader for reader, _ in pipes]


def _copy_input(target: int) -> None:
    """Copies our standard input in a thread: it may be a file, a pipe or a terminal, and nothing waits for it."""
    import threading

    def copy() -> None:
        try:
            while data := os.read(0, 65536):
                while data:
                    data = data[os.write(target, data) :]
        except OSError:
            pass  # the container reads no more
        os.close(target)

    threading.Thread(target=copy, daemon=True).start()


def _resize(settings: Settings, uid: str, container: str) -> None:
    from contextlib import suppress

    from runtime.pod.terminal import size_of

    if size := size_of(0):
        with suppress(RawpodError):  # it has ended meanwhile
            request = {"do": "resize", "container": container, "rows": size[0], "columns": size[1]}
            control.request(settings.pod(uid), request)


def _raw(wanted: bool) -> "nullcontext[None]":
    if not wanted:
        return nullcontext()
    from runtime.pod.terminal import raw_mode

    return raw_mode(0)  # type: ignore[return-value]
