"""Requests to one registry: TLS or not, authorization, redirects, and trying again.

Redirects are followed by hand: to another host nothing goes along that says who we are, and from TLS none leads away.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from rootfs.registry import failures
from rootfs.registry.auth import TOKEN_MAX, Answer, Authorizer
from rootfs.registry.challenge import parse_challenges
from rootfs.registry.config import Endpoint
from rootfs.registry.credentials import Credentials
from rootfs.registry.errors import RegistryError
from rootfs.registry.timing import Timing, retry_after
from rootfs.registry.tls import Contexts

BROKEN = (aiohttp.ClientError, OSError, TimeoutError)
"""What a connection that fails raises, while it is made and while it is read."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_MAX = 8
_AGAIN = frozenset({429, 500, 502, 503, 504})
_ERROR_MAX = 64 << 10

Body = Callable[[], AsyncIterator[bytes]] | bytes | None


class Request(NamedTuple):
    """One request. `doing` says in errors what it is for; `expect` are the statuses that are no error.

    `again` unless the caller knows better how to go on after a failure than to send all of it once more.
    """

    method: str
    url: URL
    doing: str
    scope: str
    expect: Collection[int]
    headers: Mapping[str, str] = {}
    body: Body = None
    again: bool = True


class Transport:
    """The connections to one endpoint. Closed by whoever made `session`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        where: str,
        contexts: Contexts,
        credentials: Credentials | None,
        timing: Timing,
    ) -> None:
        self.where = where
        self.timing = timing
        self._session = session
        self._endpoint = endpoint
        self._contexts = contexts
        self._known = credentials is not None
        self._authorizer = Authorizer(where, credentials, self._ask_realm)
        self._scheme = {"": "https", "tls": "https", "http": "http"}.get(endpoint.insecure, "")
        self._probing = asyncio.Lock()

    async def url(self, path: str) -> URL:
        """The address of `path` below /v2/. Finds out whether TLS is spoken where either may be."""
        if not self._scheme:
            async with self._probing:
                if not self._scheme:
                    self._scheme = await self._probe()
        return self._address(self._scheme, path)

    def _address(self, scheme: str, path: str) -> URL:
        try:
            url = URL(f"{scheme}://{self._endpoint.host}/v2/{path}", encoded=True)
            if not url.port:  # where one out of range shows
                raise ValueError("nobody listens at port 0")
            return url
        except ValueError as error:
            raise RegistryError(
                self.where, "address", f"{self._endpoint.host!r}: {str(error).lower()}", reason="unreachable"
            ) from None

    async def _probe(self) -> str:
        try:
            response = await self._open("HEAD", self._address("https", ""), {}, None)
        except BROKEN:
            return "http"
        response.close()
        return "https"

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response, once it is one of those expected. Raises RegistryError."""
        response = await self._until_answered(request)
        try:
            yield response
        finally:
            # A body that was not read to its end would have to be, to keep the connection.
            response.release() if response.content.at_eof() else response.close()

    async def _until_answered(self, request: Request) -> aiohttp.ClientResponse:
        failed = 0
        while True:
            wait: float | None = None
            try:
                response = await self._authorized(request)
            except BROKEN as broken:
                failure = failures.of_connection(broken, self.where, request.doing, request.url, self._endpoint)
                patience = failures.attempts(broken, self.timing)
            else:
                if response.status in request.expect:
                    return response
                body = await self._error_body(response)
                failure = failures.of_response(response, body, self.where, request.doing, known=self._known)
                wait = retry_after(response.headers)
                patience = self.timing.attempts if response.status in _AGAIN else 0
            failed += 1
            if failed >= patience or (wait or 0) > self.timing.patience or not request.again:
                raise failure
            await asyncio.sleep(max(wait or 0.0, self.timing.delay(failed)))

    async def _authorized(self, request: Request) -> aiohttp.ClientResponse:
        """The response, after a challenge has been answered; redirects are followed where nothing is sent."""
        header = self._authorizer.header(request.scope)
        response = await self._follow(request, header)
        for _ in range(2):
            # Nobody but the registry itself may ask who we are.
            if response.status != 401 or not (self._is_own(request.url) and self._is_own(response.url)):
                break
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
            secure = request.url.scheme == "https"
            try:
                answer = await self._authorizer.answer(challenges, request.scope, header, secure=secure)
            except BaseException:
                response.close()
                raise
            if answer is None or answer == header:
                break
            response.close()
            header = answer
            response = await self._follow(request, header)
        return response

    async def _follow(self, request: Request, authorization: str | None) -> aiohttp.ClientResponse:
        url = request.url
        for _ in range(_REDIRECTS_MAX):
            headers = dict(request.headers)
            if authorization and self._is_own(url):
                headers["Authorization"] = authorization
            response = await self._open(request.method, url, headers, request.body)
            if response.status not in _REDIRECTS or request.method not in ("GET", "HEAD"):
                return response
            target = response.headers.get("Location", "")
            response.close()
            url = self.join(url, target, request.doing)
        raise RegistryError(self.where, request.doing, f"more than {_REDIRECTS_MAX} redirects", reason="protocol")

    def join(self, base: URL, location: str, doing: str) -> URL:
        """Where a Location header leads. Raises RegistryError for what is no address, and out of TLS."""
        try:
            url = base.join(URL(location, encoded=True)).with_fragment(None)
            found = url.scheme in ("http", "https") and bool(url.host)
            url = url.with_user(None) if found and url.user is not None else url
        except ValueError:
            found = False
        if not found:
            raise RegistryError(self.where, doing, f"sent on to {location[:200]!a}, no address", reason="protocol")
        if base.scheme == "https" and url.scheme != "https":
            why = f"sent on from TLS to {str(url.origin())[:200]!a} without"
            raise RegistryError(self.where, doing, why, reason="protocol")
        return url

    def _is_own(self, url: URL) -> bool:
        """Whether `url` is at the registry itself, who may know our credentials."""
        return url.origin() == self._address(self._scheme, "").origin()

    async def _open(self, method: str, url: URL, headers: Mapping[str, str], body: Body) -> aiohttp.ClientResponse:
        verify = self._endpoint.insecure not in ("tls", "any")
        host = str(url.host_port_subcomponent)  # the port only where it is another than HTTPS's own
        data = body() if callable(body) else body
        try:
            return await self._session.request(
                method,
                url,
                headers=headers,
                data=data,
                allow_redirects=False,
                proxy=_proxy(url),
                ssl=self._contexts.context(host, verify=verify) if url.scheme == "https" else True,
            )
        except UnicodeError:  # getaddrinfo's, of a name with a label that is empty or over 63 characters
            raise aiohttp.InvalidURL(url) from None

    async def _error_body(self, response: aiohttp.ClientResponse) -> bytes:
        """The beginning of an error's body; what cannot be read of it is left out."""
        body = b""
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _ERROR_MAX:
                    break
        except BROKEN:
            pass
        response.close()
        return body

    async def _ask_realm(
        self, method: str, url: str, *, query: list[tuple[str, str]], form: dict[str, str] | None, basic: str | None
    ) -> Answer:
        doing = "authentication"
        try:
            address = URL(url)
            address = address.with_query([*address.query.items(), *query])
            if not address.host:
                raise ValueError
        except ValueError:
            raise RegistryError(self.where, doing, f"realm {url[:200]!a} is no address", reason="protocol") from None
        headers = {"Authorization": basic} if basic else {}
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        failed = 0
        while True:
            try:
                response = await self._open(method, address, headers, urlencode(form).encode() if form else None)
                body = await self.read(response, TOKEN_MAX, doing)
                if response.status not in _AGAIN:
                    return Answer(response.status, body)
                failure = failures.of_response(response, body, self.where, doing, known=self._known)
                patience = self.timing.attempts
            except BROKEN as broken:
                failure = failures.of_connection(broken, self.where, doing, address, self._endpoint)
                patience = failures.attempts(broken, self.timing)
            failed += 1
            if failed >= patience:
                raise failure
            await asyncio.sleep(self.timing.delay(failed))

    async def read(self, response: aiohttp.ClientResponse, limit: int, doing: str) -> bytes:
        """The whole body. Raises RegistryError where it is longer than `limit` bytes."""
        body = bytearray()
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > limit:
                    why = f"the answer is longer than {limit} bytes"
                    raise RegistryError(self.where, doing, why, reason="protocol")
        except BaseException:
            response.close()
            raise
        response.release()
        return bytes(body)


def _proxy(url: URL) -> str | None:
    """What https_proxy, http_proxy and no_proxy say. Not by aiohttp's trust_env, which would also read ~/.netrc."""
    if urllib.request.proxy_bypass(f"{url.host}:{url.port}"):
        return None
    return urllib.request.getproxies().get(url.scheme)


def session(timing: Timing) -> aiohttp.ClientSession:
    """A session for transports. Bodies come as they are sent, and no cookie is kept."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=16),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timing.connect, sock_read=timing.stall),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": "rawpod", "Accept-Encoding": "identity"},
        read_bufsize=1 << 20,
        max_line_size=64 << 10,
        max_field_size=64 << 10,
    )
