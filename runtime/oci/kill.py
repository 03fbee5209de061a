"""`kill`: send a signal to a container's first process, or to all."""

from __future__ import annotations

import _signal

from kernel.errors import BadInput, Conflict
from kernel.pidfd import pidfd_open, pidfd_send_signal
from runtime.container import Container
from runtime.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation

OPTIONS = (Option("--all -a", help="send it to every process of the container"),)
WORDS = "[--all] ID [SIGNAL]"
IN_ORDER = False

_ESRCH = 3


def run(invocation: Invocation) -> int:
    """Send the signal, SIGTERM unless another one is named."""
    container_id = invocation.container_id()
    invocation.no_more_words(2)
    words = invocation.parsed.words
    signum = number(words[1] if len(words) > 1 else "SIGTERM")
    container = Container.load(invocation.directory(container_id))
    everybody = invocation.parsed.flag("--all")
    if not container.status.can_kill and not everybody:
        raise Conflict(f"container {container_id!r} is {container.status}: container not running")
    if everybody:
        _kill_all(container, signum)
    elif not container.signal(signum):
        raise Conflict(f"container {container_id!r} is stopped: container not running")
    return 0


def number(text: str) -> int:
    """A signal by number, or by name with or without SIG (signal(7)). Raises BadInput."""
    if text.isascii() and text.isdigit():
        value = int(text)
        # 0 asks only whether the signal could be sent, kill(2).
        if 0 <= value < _signal.NSIG:
            return value
    else:
        name = text.upper()
        name = name if name.startswith("SIG") else f"SIG{name}"
        base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
        found = getattr(_signal, base, None)
        if isinstance(found, int) and not base.startswith("SIG_"):
            if not sign:
                return int(found)
            if base in ("SIGRTMIN", "SIGRTMAX") and offset.isdigit():
                value = found + int(sign + offset)
                if _signal.SIGRTMIN <= value <= _signal.SIGRTMAX:
                    return value
    raise BadInput(f"signal {text!r} is unknown", remedy="a number from 1 to 64, or a name such as TERM")


def _kill_all(container: Container, signum: int) -> None:
    if signum == _signal.SIGKILL:
        container.kill()
        return
    for pid in container.processes():
        try:
            pidfd = pidfd_open(pid)
            pidfd_send_signal(pidfd, signum)
        except Exception as error:
            if getattr(error, "errno", 0) != _ESRCH:
                raise
