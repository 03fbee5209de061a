"""The daemon: its order of start, its signals, its end.

First whatever may be missing is asked for, then the spawner is forked, as long as there is one thread and little memory
to share; the event loop and all that needs it come after.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cgroups import hierarchy as cgroup_hierarchy
from cgroups.cgroup import Cgroup
from kernel.errors import HostError, RawpodError
from runtime.pod import sandbox, spawner
from runtime.settings import Settings

log = logging.getLogger("rawpod.supervisor")


def run(settings: Settings, *, stop_pods: bool = False) -> None:
    """Runs the supervisor until SIGTERM or SIGINT. The pods run on, unless `stop_pods`.

    Raises HostError for what the host lacks, StoreBroken for a damaged database.
    """
    if os.geteuid() != 0:
        raise HostError("the supervisor needs root", remedy="run it as root")
    log_to_stderr()
    with ExitStack() as stack:
        stack.enter_context(single_instance(settings))
        # Pods that are to run again have the uid that they had.
        sandbox.forget_former(settings)
        stack.enter_context(in_system_cgroup(settings))
        asyncio.run(_serve(settings, spawner.start(settings), stop_pods))


async def _serve(settings: Settings, started: spawner.Spawner, stop_pods: bool) -> None:
    # Here and not above: the spawner, already forked, does without these.
    from runtime.supervisor import door
    from runtime.supervisor.api import Api
    from runtime.supervisor.controller import Controller
    from runtime.supervisor.netkeeper import NetworkKeeper
    from runtime.supervisor.node import Node
    from runtime.supervisor.registry import Registry
    from runtime.supervisor.spawnerlink import SpawnerLink
    from runtime.supervisor.store import Store

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        link = SpawnerLink(settings, started)
        stack.push_async_callback(link.close)
        store = Store(settings.database)
        stack.callback(store.close)
        registry = Registry(socket.gethostname())
        listener = door.listen(settings.socket)
        stack.callback(settings.socket.unlink, missing_ok=True)
        node = Node(store, registry, settings, link)
        stack.push_async_callback(node.stop_pods if stop_pods else node.close)
        network = NetworkKeeper(settings)
        stack.push_async_callback(network.close)
        controller = Controller(store, registry)
        stack.callback(controller.close)
        runner = await door.serve(Api(store, registry, settings), listener)
        stack.push_async_callback(runner.cleanup)
        log.info('ready, listening at "%s"', settings.socket)
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
        log.info("ending; the pods %s", "are ended" if stop_pods else "run on")


@contextmanager
def single_instance(settings: Settings) -> Iterator[None]:
    """Holds the lock of the state directory. Raises HostError if another supervisor does."""
    settings.state.mkdir(mode=0o711, parents=True, exist_ok=True)
    path = settings.state / "supervisor.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise HostError(
            f'another supervisor runs with the state directory "{settings.state}"',
            remedy="end it, or name another --state",
        ) from None
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def in_system_cgroup(settings: Settings) -> Iterator[None]:
    """Moves this process beside the pods' cgroups, and back at the end; what is then empty is removed."""
    hierarchy = cgroup_hierarchy.find()
    sandbox.system_cgroup(settings, hierarchy).add(os.getpid())
    try:
        yield
    finally:
        # A cgroup that has given controllers to its children takes no process back (cgroups(7)): then we stay.
        with contextlib.suppress(RawpodError, OSError):
            Cgroup(hierarchy.own).add(os.getpid())
            sandbox.tidy(settings)


class _OneLine(logging.Formatter):
    """Time, level, part, message; a traceback is folded into the line."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


def log_to_stderr() -> None:
    """One line an event on the standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def notify(state: str) -> None:
    """Tells systemd, if that started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
