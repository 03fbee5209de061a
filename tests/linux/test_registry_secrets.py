"""Who learns our credentials: the registry and its token realm, and nobody that they send us on to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from rootfs.images.store import ImageStore
from rootfs.registry.auth import Answer as RealmAnswer
from rootfs.registry.auth import Authorizer
from rootfs.registry.challenge import parse_challenges
from rootfs.registry.credentials import Credentials
from rootfs.registry.errors import RegistryError
from tests import registry_lab as lab
from tests.fault_proxy import Answer, Fault, FaultProxy
from tests.registry_fixtures import authority, layout, plain, pull_from, registry, store
from tests.registry_lab import Authority, Layout, Registry, TokenServer

pytestmark = pytest.mark.userland

__all__ = ["authority", "layout", "registry", "store"]

CHALLENGE = "www-authenticate"


def redirected(answer: Answer, host: str) -> Answer:
    """To the same path at another host."""
    return Answer(307, {"location": f"http://{host}{answer.path}"}, b"")


def challenge(text: str) -> Callable[[Answer], Answer]:
    return lambda answer: Answer(401, {CHALLENGE: text}, b"")


def test_a_redirect_is_followed_without_credentials(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    """CVE-2020-15157's kind. Seen to fail with the Authorization header sent whatever the host is."""

    async def work() -> tuple[FaultProxy, FaultProxy]:
        async with FaultProxy(registry.host) as elsewhere:
            # Another port is another origin, as another host is.
            proxy = FaultProxy(
                registry.host,
                Fault("/manifests/", change=challenge('Basic realm="test"')),
                Fault("/blobs/", times=99, change=lambda answer: redirected(answer, elsewhere.host)),
            )
            async with proxy:
                auth = lab.auth_file(tmp_path / "auth.json", proxy.host)
                await pull_from(store, f"{proxy.host}/app:two", plain(proxy.host), auth=auth)
                return proxy, elsewhere

    proxy, elsewhere = asyncio.run(work())
    assert "authorization" not in proxy.seen[0].headers
    assert all(seen.headers["authorization"].startswith("Basic ") for seen in proxy.seen[1:])
    assert len(elsewhere.bodies("/blobs/")) == 3
    assert all("authorization" not in seen.headers for seen in elsewhere.seen)


def test_nobody_but_the_registry_may_ask_for_credentials(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    """Seen to fail with challenges answered whoever they are from."""

    async def work() -> tuple[FaultProxy, FaultProxy]:
        async with FaultProxy(registry.host) as realm:
            asks = challenge(f'Basic realm="x", Bearer realm="http://{realm.host}/token"')
            async with FaultProxy(registry.host, Fault("/blobs/", times=99, change=asks)) as elsewhere:
                leads = Fault("/blobs/", times=99, change=lambda answer: redirected(answer, elsewhere.host))
                async with FaultProxy(registry.host, leads) as proxy:
                    auth = lab.auth_file(tmp_path / "auth.json", proxy.host)
                    with pytest.raises(RegistryError, match="HTTP 401"):
                        await pull_from(store, f"{proxy.host}/app:two", plain(proxy.host), auth=auth)
            return elsewhere, realm

    elsewhere, realm = asyncio.run(work())
    assert elsewhere.seen
    assert all("authorization" not in seen.headers for seen in elsewhere.seen)
    assert realm.seen == []


def test_redirects_end(registry: Registry, store: ImageStore) -> None:
    async def work(target: str) -> None:
        fault = Fault("/manifests/", times=99, change=lambda answer: Answer(307, {"location": target}, b""))
        async with FaultProxy(registry.host, fault) as proxy:
            await pull_from(store, f"{proxy.host}/app:two", plain(proxy.host))

    for target, what in (
        ("/v2/app/manifests/two", "more than 8 redirects"),
        ("file:///etc/passwd", "sent on to 'file:///etc/passwd', no address"),
        ("http://[", "no address"),
        ("http://a:99999/", "no address"),
    ):
        with pytest.raises(RegistryError, match=what) as caught:
            asyncio.run(work(target))
        assert caught.value.reason == "protocol"


def test_a_redirect_does_not_lead_out_of_tls(
    registry: Registry, store: ImageStore, authority: Authority, tmp_path: Path
) -> None:
    tls = {"certificate": str(authority.cert), "key": str(authority.key)}
    middle = [{"name": "redirect", "options": {"baseurl": f"http://{registry.host}/"}}]
    with lab.registry(tmp_path / "tls", http={"tls": tls}) as secure:
        lab.copy(f"docker://{registry.host}/app:two", f"docker://{secure.host}/app:two")
    kept = {"rootdirectory": str(tmp_path / "tls/data")}
    sections = {"http": {"tls": tls}, "middleware": {"storage": middle}, "storage": {"filesystem": kept}}
    with lab.registry(tmp_path / "tls", **sections) as secure:
        directory = tmp_path / "certs.d" / secure.host
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(authority.ca.read_bytes())
        config = plain()._replace(certificates=tmp_path / "certs.d")
        with pytest.raises(RegistryError, match="sent on from TLS to"):
            asyncio.run(pull_from(store, f"{secure.host}/app:two", config))


def test_a_token_that_ends_is_replaced(
    registry: Registry, store: ImageStore, authority: Authority, layout: Layout, tmp_path: Path
) -> None:
    """By as many requests as it takes: layers that are refused at the same time share the new one."""

    async def work(tokens: TokenServer, upstream: str, auth: Path) -> None:
        ended = challenge(f'Bearer realm="{tokens.url}",service="test registry",error="invalid_token"')
        once_each = [Fault(path.name, change=ended) for path in (layout.path / "blobs/sha256").iterdir()]
        async with FaultProxy(upstream, *once_each) as proxy:
            named = lab.auth_file(auth, proxy.host)
            await pull_from(store, f"{proxy.host}/private/app:two", plain(proxy.host), auth=named)

    with TokenServer(authority) as tokens, lab.registry(tmp_path / "token", auth=tokens.auth) as closed:
        creds = f"--dest-creds={lab.USER}:{lab.PASSWORD}"
        lab.copy(f"docker://{registry.host}/app:two", f"docker://{closed.host}/private/app:two", creds)
        tokens.asked.clear()
        asyncio.run(work(tokens, closed.host, tmp_path / "auth.json"))
        assert set(map(str, tokens.asked)) == {str(("GET", ["repository:private/app:pull"], True))}
        assert 3 <= len(tokens.asked) <= 4


@pytest.mark.parametrize("realm", ["http://evil.example/token", "ftp://evil.example/", "//evil.example", ""])
def test_credentials_of_a_registry_with_tls_go_nowhere_without(realm: str) -> None:
    asked: list[str] = []

    async def ask(method: str, url: str, **_: object) -> RealmAnswer:
        asked.append(url)
        return RealmAnswer(200, b'{"token": "t"}')

    authorizer = Authorizer("r.io/a", Credentials("u", "hunter2"), ask)
    challenges = parse_challenges([f'Bearer realm="{realm}",service="s"'])
    with pytest.raises(RegistryError, match="no address for https") as caught:
        asyncio.run(authorizer.answer(challenges, "repository:a:pull", None, secure=True))
    assert asked == []
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 3}', b'{"token": "a\\r\\nX: y"}', b"\xff", b"[" * 9999]
)
def test_what_is_no_token_is_not_used(body: bytes) -> None:
    async def ask(*_: object, **__: object) -> RealmAnswer:
        return RealmAnswer(200, body)

    challenges = parse_challenges(['Bearer realm="https://r.io/token"'])
    with pytest.raises(RegistryError) as caught:
        authorizer = Authorizer("r.io/a", None, ask)
        asyncio.run(authorizer.answer(challenges, "repository:a:pull", None, secure=True))
    assert caught.value.reason == "protocol"
