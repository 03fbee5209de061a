"""`run`: create and start a container, wait for its end, delete it."""

from __future__ import annotations

import _signal
import os

from kernel.cleanup import OnFailure
from kernel.credentials import set_child_subreaper
from runtime.oci import create
from runtime.oci.delete import delete
from runtime.oci.options import Option
from runtime.oci.start import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.container import Container
    from runtime.oci.main import Invocation

OPTIONS = (
    *create.OPTIONS,
    Option("--detach -d", help="return once it is started"),
    Option("--keep", help="do not delete it when it has ended"),
    Option("--no-subreaper", help="do not become the parent of the container's orphans"),
)
WORDS = "[OPTIONS] ID"
IN_ORDER = False

# What a caller sends to us is meant for the container (signal(7)): all but those that are about ourselves.
_OWN = {"SIGKILL", "SIGSTOP", "SIGCHLD", "SIGURG", "SIGWINCH", "SIGPIPE", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"}


def run(invocation: Invocation) -> int:
    """Run the container; the exit status is its process's, 128 + n after signal n."""
    invocation.no_more_words(1)
    parsed = invocation.parsed
    detach = parsed.flag("--detach")
    own_terminal = not detach and not parsed.text("--console-socket")
    if not detach and not parsed.flag("--no-subreaper"):
        set_child_subreaper()
    container = create.created(invocation, own_terminal=own_terminal)
    directory = invocation.directory(container.id)
    with OnFailure() as on_failure:
        on_failure.call(create.forget, directory)
        on_failure.call(create.end, container)
        if not detach:
            forward_signals(container.pidfd)
        if container.console_fd is not None:
            from runtime.oci.console import keep_line_ends

            keep_line_ends(container.console_fd)
        start(container, invocation, aside=not detach)
        if detach:
            os.close(container.pidfd)
            return 0
        status = _wait(container)
    if not parsed.flag("--keep"):
        delete(container, directory)
        invocation.warn(container)
    return status


def _wait(container: Container) -> int:
    if container.console_fd is not None:
        from runtime.oci.console import relay

        relay(container.console_fd, container.pidfd)
        container.console_fd = None
    return container.wait().shell


def forward_signals(pidfd: int) -> None:
    """Send on to a process whatever signal reaches us."""

    def forward(signum: int, _frame: object) -> None:
        try:
            _signal.pidfd_send_signal(pidfd, signum)
        except ProcessLookupError:
            pass

    own = {getattr(_signal, name) for name in _OWN}
    for signum in range(1, 32):
        if signum not in own:
            _signal.signal(signum, forward)
