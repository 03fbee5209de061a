"""Descriptors for callers that listen on a unix socket, and a terminal shown in the caller's own."""

from __future__ import annotations

import _socket
import os
import struct

from kernel.errors import ContainerError


def send_descriptor(path: str, fd: int, name: bytes) -> None:
    """Send a descriptor with its name, as runc does (docs/terminals.md there), and close it. Raises ContainerError."""
    end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    # The way to the socket may be longer than the 107 bytes of a socket's path (unix(7)).
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        end.sendmsg([name], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))])
    except OSError as error:
        raise ContainerError(f"socket {path!r}: {os.strerror(error.errno or 0).lower()}") from None
    finally:
        end.close()
        os.close(directory)
        os.close(fd)


def relay(master: int, pidfd: int) -> None:
    """Show a terminal in the caller's own until the process behind `pidfd` ends; window size and input follow.

    The caller's terminal is put into raw mode meanwhile, so that Ctrl-C goes to the process.
    """
    from runtime.pod.loop import Loop
    from runtime.pod.streams import InputPump, OutputPump, Sink
    from runtime.pod.terminal import copy_size, raw_mode

    loop = Loop()
    sink = Sink(loop, 1)
    output = OutputPump(loop, master, _nowhere, sink, _nothing)
    InputPump(loop, 0, os.dup(master), close_at_end=False)
    loop.add(pidfd, loop.stop)
    loop.on_signals((_SIGWINCH,), lambda number: copy_size(0, master))
    if not os.isatty(0):
        loop.run()
    else:
        copy_size(0, master)
        with raw_mode(0):
            loop.run()
    output.drain()
    sink.finish()


def keep_line_ends(terminal: int) -> None:
    """Let "\\n" out as it is where our output is no screen, which a carriage return is for (termios(3))."""
    import termios

    if os.isatty(1):
        return
    mode = termios.tcgetattr(terminal)
    mode[1] &= ~termios.ONLCR
    termios.tcsetattr(terminal, termios.TCSANOW, mode)


_SIGWINCH = 28


def _nowhere(_data: bytes) -> None:
    """Output is for the caller alone."""


def _nothing() -> None:
    """The process's end is what counts."""
