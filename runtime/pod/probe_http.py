"""httpGet of a probe: a request, and what comes back, with redirects as kubelet follows them."""

from __future__ import annotations

from collections.abc import Callable

from runtime.pod.faults import shown
from runtime.pod.loop import Loop
from runtime.pod.probe_response import Malformed, Response
from runtime.pod.probe_socket import Connection, Place, TlsConnection
from runtime.pod.probes import FAILURE, SUCCESS, UNKNOWN, USER_AGENT, HttpGet, quoted, target_of

MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_WRITTEN_HERE = ("host", "content-length", "transfer-encoding", "trailer")


class HttpAsk:
    """One httpGet. `done` is called with the result and what there is to say of it, unless it is closed before."""

    def __init__(self, loop: Loop, place: Place, action: HttpGet, done: Callable[[str, str], None]) -> None:
        self._loop, self._place, self._done = loop, place, done
        self._action = action
        self._followed = 0
        self._connection: Connection | None = None
        self._response = Response()
        self._connect()

    @property
    def url(self) -> str:
        """What is asked for now."""
        action = self._action
        return f"{'https' if action.tls else 'http'}://{self._authority(action)}{action.target}"

    def _authority(self, action: HttpGet) -> str:
        host = self._host(action)
        return f"[{host}]:{action.port}" if ":" in host else f"{host}:{action.port}"

    def _host(self, action: HttpGet) -> str:
        return action.host or self._place.address

    def _connect(self) -> None:
        kind = TlsConnection if self._action.tls else Connection
        self._response = Response()
        self._connection = kind(self._loop, self._place, self._host(self._action), self._action.port, self)

    def opened(self) -> None:
        assert self._connection is not None
        self._connection.send(request(self._action, self._authority(self._action)))

    def received(self, data: bytes) -> None:
        self._understand(lambda: self._response.feed(data))

    def ended(self) -> None:
        self._understand(self._response.end)

    def _understand(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Malformed as error:
            # A body that breaks off tells nothing to kubelet, headers that do are a failure.
            self._finish(UNKNOWN if self._response.status else FAILURE, f"Get {self.url}: {error}")
            return
        if self._response.done:
            self._answered()

    def broke(self, reason: str) -> None:
        self._finish(UNKNOWN if self._response.status else FAILURE, f"Get {self.url}: {reason}")

    def overdue(self, seconds: int) -> tuple[str, str]:
        """The result when it has taken that long."""
        result = UNKNOWN if self._response.status else FAILURE
        return result, f"Get {self.url}: no answer within {seconds} s"

    def _answered(self) -> None:
        status, location = self._response.status, self._response.headers.get("location", "")
        if status in _REDIRECTS and location:
            self._redirected(location)
        elif 200 <= status < 400:
            self._finish(SUCCESS, "")
        else:
            self._finish(FAILURE, f"HTTP probe failed with statuscode: {status}")

    def _redirected(self, location: str) -> None:
        """To the same host kubelet follows, whatever the port; to another it does not, which is a success."""
        try:
            following = redirected(self._action, self.url, location)
        except ValueError as error:
            self._finish(FAILURE, f"Get {self.url}: redirect to {shown(location)}: {error}")
            return
        if following.host != self._host(self._action):
            self._finish(SUCCESS, f"a redirect to {shown(location)} is not followed")
        elif self._followed == MAX_REDIRECTS - 1:
            self._finish(FAILURE, f"Get {self.url}: stopped after {MAX_REDIRECTS} redirects")
        else:
            self.close()
            self._followed += 1
            self._action = following
            try:
                self._connect()
            except OSError as error:
                self._finish(FAILURE, f"Get {self.url}: {(error.strerror or str(error)).lower()}")

    def _finish(self, result: str, message: str) -> None:
        self.close()
        self._done(result, message)

    def close(self) -> None:
        """No more of it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def request(action: HttpGet, authority: str) -> bytes:
    """The request's bytes. Pure.

    A header that kubelet sets itself is replaced by one of the same name, and left out if that is empty.
    """
    given = [(name, value) for name, value in action.headers if name.lower() not in _WRITTEN_HERE]
    names = {name.lower() for name, _ in given}
    host = next((value for name, value in action.headers if name.lower() == "host" and value), authority)
    defaults = [("User-Agent", USER_AGENT), ("Accept", "*/*"), ("Connection", "close")]
    headers = [("Host", host), *((name, value) for name, value in defaults if name.lower() not in names)]
    headers += [(name, value) for name, value in given if value or name.lower() not in ("user-agent", "accept")]
    lines = [f"GET {action.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


def redirected(action: HttpGet, url: str, location: str) -> HttpGet:
    """The request that a redirect asks for; a Host header of the manifest's own goes along a relative one only. Pure.

    Raises ValueError for what is no address of the web.
    """
    from urllib.parse import urljoin, urlsplit

    target = urlsplit(urljoin(url, quoted(location)))
    if target.scheme not in ("http", "https"):
        raise ValueError(f"unsupported protocol scheme {shown(target.scheme)}")
    if not target.hostname:
        raise ValueError("no host")
    relative = not urlsplit(location).netloc
    return HttpGet(
        host=target.hostname,
        port=target.port or (443 if target.scheme == "https" else 80),
        target=target_of(target.path + (f"?{target.query}" if target.query else "")),
        tls=target.scheme == "https",
        headers=action.headers if relative else tuple(pair for pair in action.headers if pair[0].lower() != "host"),
    )
