"""The supervisor's end of the spawner: requests and answers, and a new spawner when the old one has died.

A spawner has to be forked from a process without threads and event loop, which the supervisor is no longer once it
serves. So a successor is started by a fresh interpreter, which forks it, hands the connection over and ends. This takes
a third of a second and happens only if somebody kills the spawner; a zygote kept for the purpose would be one more
process to lose, and ending the supervisor so that systemd starts it again needs a systemd.
"""

import array
import asyncio
import contextlib
import json
import logging
import os
import socket
import sys

from kernel.errors import RawpodError
from runtime.pod.spawner import Spawner
from runtime.settings import Settings

log = logging.getLogger("rawpod.spawner")

_MAX_ANSWER = 64 * 1024
_FIRST_DELAY, _LONGEST_DELAY = 0.0, 30.0


class SpawnerLink:
    """Asks the spawner for monitors and for the destruction of what a pod left."""

    def __init__(self, settings: Settings, spawner: Spawner) -> None:
        self._settings = settings
        self._waiting: dict[str, asyncio.Future[dict[str, object]]] = {}
        self._ready = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._revival: asyncio.Task[None] | None = None
        self._closed = False
        self._child: int | None = spawner.pid
        self._take(spawner.connection)

    async def spawn(self, uid: str) -> int:
        """A monitor for the pod whose directory is ready: its pid. Raises RawpodError."""
        answer = await self._ask(uid, {"spawn": {"uid": uid}})
        return int(str(answer["pid"]))

    async def destroy(self, uid: str) -> None:
        """Takes away all that the pod left. Raises RawpodError while that is not possible."""
        await self._ask(uid, {"destroy": {"uid": uid}})

    async def _ask(self, uid: str, request: dict[str, object]) -> dict[str, object]:
        await self._ready.wait()
        answer = self._waiting[uid] = self._loop.create_future()
        try:
            await self._loop.sock_sendall(self._connection, json.dumps(request).encode())
            found: dict[str, object] = await answer
        except OSError as error:
            raise RawpodError(f"the spawner is gone: {error.strerror}") from None
        finally:
            if self._waiting.get(uid) is answer:
                del self._waiting[uid]
        if "error" in found:
            raise RawpodError(str(found["error"]))
        return found

    def _take(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setblocking(False)
        self._loop.add_reader(connection, self._answered)
        self._ready.set()

    def _answered(self) -> None:
        try:
            packet = self._connection.recv(_MAX_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._gone()
            return
        answer = json.loads(packet)
        future = self._waiting.get(answer["uid"])
        if future is not None and not future.done():
            future.set_result(answer)

    def _gone(self) -> None:
        self._loop.remove_reader(self._connection)
        self._connection.close()
        self._ready.clear()
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)
            self._child = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RawpodError("the spawner ended before it answered"))
        if not self._closed:
            log.error("the spawner has ended, starting another")
            self._revival = self._loop.create_task(self._revive())

    async def _revive(self) -> None:
        delay = _FIRST_DELAY
        while True:
            await asyncio.sleep(delay)
            delay = min(_LONGEST_DELAY, delay * 2 or 1.0)
            try:
                self._take(await self._start())
            except (RawpodError, OSError) as error:
                log.error("no spawner, trying again in %g s: %s", delay, error)
            else:
                return

    async def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", _STARTER, os.fspath(_home()), str(theirs.fileno())),
                json.dumps(self._settings.to_json()),
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            if await process.wait() != 0:
                raise RawpodError(f"the starter of the spawner ended with status {process.returncode}")
            return socket.socket(fileno=_receive_descriptor(ours))

    async def close(self) -> None:
        """Ends the spawner: the end of the connection ends it."""
        self._closed = True
        if self._revival is not None:
            self._revival.cancel()
        if not self._ready.is_set():
            return
        self._loop.remove_reader(self._connection)
        self._connection.close()
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):
                await asyncio.to_thread(os.waitpid, self._child, 0)


# An isolated interpreter does not look into the directory it is started in, so it is told where the program is.
_STARTER = (
    "import sys; sys.path.insert(0, sys.argv[1]); from runtime.supervisor.spawnerlink import hand_over; hand_over()"
)


def _home() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def hand_over() -> None:
    """In the fresh interpreter: forks a spawner and sends its connection to descriptor argv[2]."""
    from runtime.pod import spawner

    fd, settings = int(sys.argv[2]), Settings.from_json(json.loads(sys.argv[3]))
    os.set_inheritable(fd, False)
    with socket.socket(fileno=fd) as to:
        started = spawner.start(settings)
        socket.send_fds(to, [b"s"], [started.connection.fileno()])


def _receive_descriptor(connection: socket.socket) -> int:
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return int(array.array("i", data[:4])[0])
    raise RawpodError("the starter of the spawner sent no connection")
