"""The door's socket: who may come in, and how it is opened."""

import os
import socket
from pathlib import Path

from aiohttp import web

from kernel.errors import HostError
from kernel.peers import peer_uid
from runtime.supervisor.api import Api
from runtime.supervisor.responses import Handler, reply, status

BACKLOG = 2048


def listen(path: Path) -> socket.socket:
    """The door's socket, replacing one that nobody listens on. Raises HostError if somebody does."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(os.fspath(path)) == 0:
                raise HostError(f'something listens at "{path}" already', remedy="end it, or name another --socket")
        path.unlink(missing_ok=True)
        # bind(2) gives the file the mode of the socket's own inode: it is never open to others, not for a moment.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(
            f'cannot listen at "{path}": {error.strerror or error}', remedy="name another --socket"
        ) from None
    except BaseException:
        listener.close()
        raise
    return listener


@web.middleware
async def only_root_and_self(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets root and the supervisor's own user in, whoever has the socket."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None or peer_uid(connection) not in (0, os.geteuid()):
        return reply(status(403, "Forbidden", "only root may use this socket"), 403)
    return await handler(request)


async def serve(api: Api, listener: socket.socket) -> web.AppRunner:
    """Begins to serve; the answer's cleanup() ends it."""
    app = api.application()
    app.middlewares.insert(0, only_root_and_self)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    return runner
