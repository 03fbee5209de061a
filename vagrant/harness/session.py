"""One boot: starts QEMU, passes the command's output on as it comes, and learns its exit status."""

import contextlib
import os
import selectors
import socket
import subprocess
import time
from dataclasses import dataclass, field

from harness.errors import TIMED_OUT, HarnessError
from harness.qemu import Machine


@dataclass
class Outcome:
    """What came of a boot. Times in seconds since QEMU started; no status if the machine went away without one."""

    status: int | None = None
    milestones: dict[str, float] = field(default_factory=dict)
    timed_out: bool = False


class Session:
    """A machine and its two ports: "output" carries bytes, "status" carries lines (booted, started, exit N)."""

    def __init__(self, machine: Machine, *, output: int, errors: int | None = None) -> None:
        """Output of the command goes to the descriptor `output`, messages of QEMU's own to `errors` (None: stderr)."""
        self._machine = machine
        self._output = output
        self._errors = errors
        self._pending = b""
        self.outcome = Outcome()

    def run(self, timeout: float, *, boot_limit: float | None = None) -> Outcome:
        """Boots and waits for the end: at most `timeout` seconds, and at most `boot_limit` for the word "booted"."""
        with contextlib.ExitStack() as stack:
            ports = {name: socket.socketpair() for name in ("status", "output")}
            for ours, theirs in ports.values():
                stack.enter_context(ours)
                stack.enter_context(theirs)
            started = time.monotonic()
            qemu = subprocess.Popen(
                self._machine.command({name: theirs.fileno() for name, (_, theirs) in ports.items()}),
                stdin=None if self._machine.interactive else subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno() for _, theirs in ports.values()],
            )
            stack.callback(_end, qemu)
            selector = stack.enter_context(selectors.DefaultSelector())
            for name, (ours, theirs) in ports.items():
                # Only QEMU holds the other ends now, so both ports end when it does.
                theirs.close()
                selector.register(ours, selectors.EVENT_READ, name)
            while selector.get_map():
                booting = boot_limit is not None and "booted" not in self.outcome.milestones
                limit = min(timeout, boot_limit) if booting and boot_limit is not None else timeout
                remaining = started + limit - time.monotonic()
                if remaining <= 0:
                    self.outcome.timed_out = True
                    return self.outcome
                for key, _ in selector.select(remaining):
                    if not self._receive(ports[key.data][0], key.data, started):
                        selector.unregister(key.fileobj)
            qemu.wait()
        return self.outcome

    def console_tail(self, lines: int = 25) -> str:
        """The last lines of the machine's console."""
        log = self._machine.console
        said = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
        return "\n".join(said) or "(nothing)"

    def exit_status(self) -> int:
        """The command's exit status, or an error that says why there is none."""
        if self.outcome.timed_out:
            reached = ", ".join(self.outcome.milestones) or "nothing"
            message = f"time is up (reached: {reached}); the console said:\n{self.console_tail()}"
            raise HarnessError(message, exit_code=TIMED_OUT)
        if self.outcome.status is None:
            raise HarnessError(f"the machine ended without an exit status; its console said:\n{self.console_tail()}")
        return self.outcome.status

    def _receive(self, port: socket.socket, name: str, started: float) -> bool:
        """Handles what a port has to say; False when it has ended."""
        data = port.recv(1 << 16)
        if name == "output":
            _write_all(self._output, data)
        else:
            *lines, self._pending = (self._pending + data).split(b"\n")
            for line in lines:
                word, _, value = line.decode().partition(" ")
                self.outcome.milestones[word] = time.monotonic() - started
                if word == "exit":
                    self.outcome.status = int(value)
        return bool(data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _end(qemu: subprocess.Popen[bytes]) -> None:
    if qemu.poll() is None:
        qemu.kill()
        qemu.wait()
