"""The caller's terminal while a payload has a terminal of its own: raw mode, and the window's size passed on."""

import contextlib
import fcntl
import os
import struct
import termios
import tty
from collections.abc import Iterator


@contextlib.contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Hand every key to the payload unchanged; the old mode is restored in any case (termios(3))."""
    if not os.isatty(fd):
        yield
        return
    old = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, old)


def copy_size(source: int, target: int) -> None:
    """Give the terminal `target` the size of `source`, if that is one (ioctl_tty(2))."""
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)


def set_size(target: int, rows: int, columns: int) -> None:
    """Give the terminal that size (ioctl_tty(2)); its foreground processes are told by SIGWINCH."""
    fcntl.ioctl(target, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def size_of(source: int) -> tuple[int, int] | None:
    """Rows and columns of a terminal, None if it is none."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return None
    return rows, columns
