"""Where failures go: one line on standard error, and the same in the caller's log in the form it asked for."""

from __future__ import annotations

import os
import sys
import time

from kernel import events
from runtime import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kernel.events import Event


def report(error: Exception, log: str, log_format: str) -> None:
    """Say it on standard error and, where there is a log, there as well, in one write."""
    message = str(error)
    if isinstance(error, OSError) and error.errno:
        message = os.strerror(error.errno).lower() + (f": {error.filename!r}" if error.filename else "")
    _tell(message, log, log_format, "error")


def warn(warnings: list[str], log: str, log_format: str) -> None:
    """The same for what is no failure (runtime.md, "Warnings")."""
    for message in warnings:
        _tell(message, log, log_format, "warning")


def _tell(message: str, log: str, log_format: str, level: str) -> None:
    line = " ".join(message.split("\n"))
    _write(2, f"rawpod-oci: {'warning: ' if level == 'warning' else ''}{line}\n".encode(errors="replace"))
    if log:
        _append(log, _line(line, log_format, level))


def timed(work: Callable[[], int], log: str, log_format: str) -> int:
    """Do the work and log every system call, request and cgroup write of it with the milliseconds since the last."""
    begun = [time.monotonic()]

    def tell(event: Event) -> None:
        arguments = " ".join(f"{key}={value!r}" for key, value in event.arguments.items())
        outcome = os.strerror(event.errno).lower() if event.errno > 0 else str(event.result)
        line = f"{(event.time - begun[0]) * 1000:.2f} ms pid {event.pid} {event.name} {arguments} = {outcome}"
        begun[0] = event.time
        if log:
            _append(log, _line(line, log_format, "debug"))
        else:
            _write(2, _line(line, log_format, "debug"))

    unsubscribe = events.subscribe(tell)
    try:
        return work()
    finally:
        unsubscribe()


def _line(message: str, log_format: str, level: str) -> bytes:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if log_format == "json":
        return jsontext.dumps({"level": level, "msg": message, "time": stamp}) + b"\n"
    return f'time="{stamp}" level={level} msg={jsontext.dumps(message).decode()}\n'.encode()


def _append(path: str, data: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        print(f"rawpod-oci: log {path!r}: {os.strerror(error.errno or 0).lower()}", file=sys.stderr)
        return
    try:
        _write(fd, data)
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        pass  # nobody is left who could be told
