"""One boot: starts QEMU, passes the command's output on as it comes, and learns its exit status."""

import contextlib
import os
import selectors
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import TIMED_OUT, HarnessError
from harness.qemu import Machine


@dataclass
class Outcome:
    """What came of a boot. Times in seconds since QEMU was started; status is None if the machine went away without one."""

    status: int | None = None
    milestones: dict[str, float] = field(default_factory=dict)
    timed_out: bool = False


class Session:
    """A running machine and its two ports: "output" carries bytes, "status" carries lines (booted, started, exit N)."""

    def __init__(self, machine: Machine, *, output: int, boot_limit: float | None = None) -> None:
        self._machine = machine
        self._output = output
        self._boot_limit = boot_limit
        self._pending = b""
        self.outcome = Outcome()

    def run(self, timeout: float) -> Outcome:
        """Boots, waits for the end, at most `timeout` seconds (and at most boot_limit for "booted"), and ends QEMU."""
        with contextlib.ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            for name in ("status", "output"):
                selector.register(stack.enter_context(_listener(self._machine.sockets / name)), selectors.EVENT_READ, name)
            started = time.monotonic()
            qemu = subprocess.Popen(
                self._machine.command(), stdin=None if self._machine.interactive else subprocess.DEVNULL, pass_fds=()
            )
            stack.callback(_end, qemu)
            pidfd = os.pidfd_open(qemu.pid)
            stack.callback(os.close, pidfd)
            selector.register(pidfd, selectors.EVENT_READ, "gone")
            while not self._step(selector, stack, started, timeout):
                pass
            if not self.outcome.timed_out and qemu.wait() != 0 and self.outcome.status is None:
                raise HarnessError(f"QEMU ended with status {qemu.returncode}; its console said:\n{self.console_tail()}")
        return self.outcome

    def console_tail(self, lines: int = 25) -> str:
        """The last lines of the machine's console."""
        log = self._machine.sockets / "console.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(nothing)"

    def _step(self, selector: selectors.BaseSelector, stack: contextlib.ExitStack, started: float, timeout: float) -> bool:
        """Handles what is ready; True when the machine is gone and everything it said was read, or its time is up."""
        booting = self._boot_limit is not None and "booted" not in self.outcome.milestones
        limit = min(timeout, self._boot_limit) if booting and self._boot_limit is not None else timeout
        remaining = started + limit - time.monotonic()
        if remaining <= 0:
            self.outcome.timed_out = True
            return True
        for key, _ in selector.select(remaining):
            if isinstance(key.fileobj, socket.socket) and key.data in ("status", "output"):
                selector.unregister(key.fileobj)
                connection = stack.enter_context(key.fileobj.accept()[0])
                selector.register(connection, selectors.EVENT_READ, "line" if key.data == "status" else "bytes")
            elif isinstance(key.fileobj, socket.socket):
                data = key.fileobj.recv(1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.data == "bytes":
                    _write_all(self._output, data)
                else:
                    self._status(data, time.monotonic() - started)
            else:
                selector.unregister(key.fileobj)
        # QEMU is gone when its pidfd was readable and both of its connections ended.
        return not any(key.data in ("line", "bytes", "gone") for key in selector.get_map().values())

    def _status(self, data: bytes, at: float) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            word, _, value = line.decode().partition(" ")
            self.outcome.milestones[word] = at
            if word == "exit":
                self.outcome.status = int(value)


def exit_status(outcome: Outcome, session: Session, timeout: float) -> int:
    """The command's exit status, or an error that says why there is none."""
    if outcome.timed_out:
        reached = ", ".join(outcome.milestones) or "nothing"
        raise HarnessError(
            f"no end after {timeout:g} s (reached: {reached}); the console said:\n{session.console_tail()}", exit_code=TIMED_OUT
        )
    if outcome.status is None:
        raise HarnessError(f"the machine ended without an exit status; its console said:\n{session.console_tail()}")
    return outcome.status


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    return listener


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _end(qemu: subprocess.Popen[bytes]) -> None:
    if qemu.poll() is None:
        qemu.kill()
        qemu.wait()
