"""Pushing to a registry: what other programs read there, what is sent, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from kernel.errors import BadInput, NotFound, NotSupported
from rootfs.images.store import ImageStore
from rootfs.registry.errors import RegistryError
from rootfs.registry.pull import Event
from rootfs.registry.push import Pushed
from rootfs.registry.send import send as send_by_name
from runtime.settings import Settings
from tests import registry_lab as lab
from tests.fault_proxy import Answer, Fault, FaultProxy
from tests.images import make_image
from tests.registry_fixtures import authority, content, fetch, layout, plain, push_to, registry, send, store
from tests.registry_lab import Authority, Registry, TokenServer

pytestmark = pytest.mark.userland

__all__ = ["authority", "layout", "registry", "store"]

RAWPOD = Path(sys.executable).with_name("rawpod")


def rawpod(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program itself, as a user starts it."""
    return subprocess.run(
        [RAWPOD, *arguments], capture_output=True, text=True, check=False, env=os.environ | environment
    )


def test_others_read_what_was_pushed(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    image = make_image(store.root, "mine:1", entrypoint=("/bin/sh",), labels={"a": "b"})
    target = f"{registry.host}/pushed/mine:1"
    events: list[Event] = []
    pushed = send(store, "mine:1", target, plain(registry.host), progress=events.append)
    assert pushed.digest == image.digest
    assert pushed.sent == sum(event.total for event in {event.layer: event for event in events}.values())
    assert {event.state for event in events} == {"waiting", "pushing", "done"}
    inspected = json.loads(lab.skopeo("inspect", "--tls-verify=false", f"docker://{target}"))
    assert (inspected["Digest"], inspected["Labels"]) == (image.digest, {"a": "b"})
    lab.copy(f"docker://{target}", f"oci:{tmp_path}/layout:mine")
    lab.run("umoci", "raw", "unpack", "--image", f"{tmp_path}/layout:mine", tmp_path / "root")
    assert (tmp_path / "root/etc/passwd").read_bytes() == content(store, "mine:1", "etc/passwd")
    assert (tmp_path / "root/bin/sh").readlink() == Path("busybox")


def test_what_the_registry_has_is_not_sent(registry: Registry, store: ImageStore) -> None:
    config = plain(registry.host)
    fetch(store, f"{registry.host}/app:one", config)
    again = send(store, f"{registry.host}/app:one", f"{registry.host}/app:again", config)
    assert again.sent == 0
    before = len(registry.requests())
    events: list[Event] = []
    mounted = send(store, f"{registry.host}/app:one", f"{registry.host}/mounted/app", config, progress=events.append)
    assert mounted.sent == 0
    assert {event.state for event in events} == {"waiting", "mounted"}
    asked = [(method, status) for method, _, status in registry.requests()[before:]]
    assert sorted(asked) == [("HEAD", 404)] * 4 + [("POST", 201)] * 4 + [("PUT", 201)]
    assert fetch(store, f"{registry.host}/mounted/app", config).image.digest == mounted.digest


def test_of_an_index_the_platform_that_is_here_is_pushed(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    config = plain(registry.host)
    pulled = fetch(store, f"{registry.host}/app:many", config)
    registries = tmp_path / "registries.toml"
    registries.write_text(f'registries."{registry.host}".insecure = "http"')
    notes: list[str] = []
    pushed = send_by_name(
        store.root,
        f"{registry.host}/app:many",
        f"{registry.host}/single:1",
        registries=registries,
        note=notes.append,
    )
    assert pushed.digest == pulled.image.digest
    assert "came for several platforms; the image for linux/" in notes[0]
    assert fetch(store, f"{registry.host}/single:1", config).digest == pulled.image.digest


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/blobs/uploads/.+LAYER", times=2, method="PUT", cut=100_000),
        Fault("/blobs/uploads/.+LAYER", method="PUT", change=lambda _: Answer(500, {}, b"")),
        Fault("/blobs/uploads/$", times=2, method="POST", change=lambda _: Answer(503, {}, b"")),
        Fault("/manifests/", times=2, method="PUT", change=lambda _: Answer(429, {"retry-after": "0"}, b"")),
        Fault("/blobs/sha256", method="HEAD", refuse=True),
    ],
    ids=["cut", "failed at its end", "not begun", "manifest", "head"],
)
def test_a_push_gets_over_failures(registry: Registry, store: ImageStore, fault: Fault) -> None:
    image = make_image(store.root, "mine:1", labels={"fault": str(fault)})
    fault = fault._replace(path=fault.path.replace("LAYER", store.find("mine:1").blobs[-1]))

    async def work() -> Pushed:
        async with FaultProxy(registry.host, fault) as proxy:
            return await push_to(store, "mine:1", f"{proxy.host}/{name}", plain(proxy.host))

    name = f"faulty/{abs(hash(str(fault)))}"
    pushed = asyncio.run(work())
    assert fetch(store, f"{registry.host}/{name}", plain(registry.host)).digest == image.digest == pushed.digest


class Uploads:
    """A registry that takes uploads up where they broke, as distribution's does not: the first PUT breaks halfway."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.broken = False

    def application(self) -> web.Application:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.method)
        if request.method == "HEAD":
            return web.Response(status=404)
        if "/manifests/" in request.path:
            return web.Response(status=201)
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": f"/v2/up/{len(self.asked)}?state=a%2Fb"})
        assert request.query["state"] == "a/b"
        here = self.data.get(request.path, b"")
        if request.method == "GET":
            told = {"Range": f"0-{len(here) - 1}", "Location": str(request.rel_url)}
            return web.Response(status=204, headers=told)
        if request.method == "PATCH":
            assert request.headers["Content-Range"].startswith(f"{len(here)}-")
        elif not self.broken and int(request.headers["Content-Length"]) > 100_000:
            self.broken = True
            self.data[request.path] = await request.content.readexactly(100_000)
            assert request.transport
            request.transport.abort()
            return web.Response()
        here += await request.read()
        self.data[request.path] = here
        if request.method == "PUT":
            assert request.query["digest"] == "sha256:" + hashlib.sha256(here).hexdigest()
            return web.Response(status=201)
        return web.Response(status=202, headers={"Location": f"{request.rel_url}"})


def test_an_upload_goes_on_where_the_registry_says(host: None, store: ImageStore) -> None:
    make_image(store.root, "mine:1")
    layer = store.places.blob(store.find("mine:1").blobs[-1]).read_bytes()
    uploads = Uploads()

    async def work() -> Pushed:
        runner = web.AppRunner(uploads.application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        name = f"127.0.0.1:{runner.addresses[0][1]}"
        try:
            return await push_to(store, "mine:1", f"{name}/a:1", plain(name))
        finally:
            await runner.cleanup()

    pushed = asyncio.run(work())
    assert uploads.broken
    assert layer in uploads.data.values()
    assert uploads.asked.count("PATCH") == uploads.asked.count("GET") == 1
    assert pushed.sent < 2 * len(layer)


def test_a_push_that_is_not_wanted_ends_at_once(registry: Registry, store: ImageStore) -> None:
    make_image(store.root, "mine:1")

    async def work() -> int:
        denied = Answer(400, {}, b'{"errors": [{"code": "MANIFEST_INVALID", "message": "not here"}]}')
        fault = Fault("/manifests/", times=9, method="PUT", change=lambda _: denied)
        async with FaultProxy(registry.host, fault) as proxy:
            with pytest.raises(RegistryError, match="manifest '2': HTTP 400 MANIFEST_INVALID: not here") as caught:
                await push_to(store, "mine:1", f"{proxy.host}/refused:2", plain(proxy.host))
            assert (caught.value.reason, caught.value.code) == ("refused", "MANIFEST_INVALID")
            return sum(seen.method == "PUT" and "/manifests/" in seen.path for seen in proxy.seen)

    assert asyncio.run(work()) == 1


def test_a_token_to_push_is_asked_for(
    registry: Registry, store: ImageStore, authority: Authority, tmp_path: Path
) -> None:
    make_image(store.root, "mine:1")
    with TokenServer(authority) as tokens, lab.registry(tmp_path / "token", auth=tokens.auth) as closed:
        right = lab.auth_file(tmp_path / "right.json", closed.host)
        config = plain(closed.host)
        send(store, "mine:1", f"{closed.host}/private/a:1", config, auth=right)
        assert tokens.asked == [("GET", ["repository:private/a:pull,push"], True)]
        store.tag("mine:1", f"{closed.host}/private/a:1")
        mounted = send(store, "mine:1", f"{closed.host}/private/b:1", config, auth=right)
        assert mounted.sent == 0
        assert any("repository:private/a:pull" in scopes for _, scopes, _ in tokens.asked)
        with pytest.raises(RegistryError, match="HTTP 401"):
            send(store, "mine:1", f"{closed.host}/private/c:1", config)


def test_what_cannot_be_pushed_is_refused(store: ImageStore, tmp_path: Path) -> None:
    make_image(store.root, "mine:1")
    with pytest.raises(NotSupported, match="the machine's own /usr"):
        send_by_name(store.root, "host")
    with pytest.raises(NotFound):
        send_by_name(store.root, "nothing")
    with pytest.raises(BadInput, match="names a digest"):
        send_by_name(store.root, "mine:1", f"localhost:1/a@sha256:{'0' * 64}")


def test_the_command_pulls_and_pushes(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    registries = tmp_path / "registries.toml"
    registries.write_text(
        f'default-registry = "{registry.host}"\naliases.short = "{registry.host}/app"\n'
        f'registries."{registry.host}".insecure = "http"\n'
    )
    root = store.root.parent
    environment = {"RAWPOD_ROOT": str(root), "RAWPOD_REGISTRIES": str(registries), "HOME": str(tmp_path)}
    done = rawpod("pull", "app:one", **environment)
    name, digest = done.stdout.split()
    assert (done.returncode, name) == (0, f"{registry.host}/app:one")
    assert {line.split()[1] for line in done.stderr.splitlines()} >= {"waiting", "downloading", "unpacking", "done"}
    done = rawpod("image", "pull", "--quiet", "short:one", **environment)
    assert (done.returncode, done.stdout.split()[1], done.stderr) == (0, digest, "")
    assert store.get("short:one").digest == digest
    done = rawpod("push", "--progress", "json", "short:one", "pushed:two", **environment)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1] == {"image": f"{registry.host}/pushed:two", "digest": digest}
    assert {line["state"] for line in lines[:-1]} == {"waiting", "mounted"}
    done = rawpod("pull", "--progress", "json", "pushed:three", **environment)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["reason"]) == (125, "not-found")
    assert "HTTP 404 MANIFEST_UNKNOWN" in last["error"]
    assert done.stderr.startswith(f"rawpod: {registry.host}/pushed: manifest 'three': HTTP 404")


def test_a_container_runs_from_an_image_that_a_registry_has(
    registry: Registry, settings: Settings, store: ImageStore, tmp_path: Path
) -> None:
    make_image(store.root, "mine:1", entrypoint=("/bin/cat",), cmd=("/etc/passwd",))
    send(store, "mine:1", f"{registry.host}/run/me:1", plain(registry.host))
    registries = tmp_path / "registries.toml"
    registries.write_text(f'aliases.runme = "{registry.host}/run/me"\nregistries."{registry.host}".insecure = "http"')
    options = ["--root", settings.root, "--state", settings.state, "--cgroup", settings.cgroup]
    options += ["--registries", registries, "--missing-controllers", "warn"]
    done = rawpod(*map(str, options), "run", "--rm", "--network", "none", "runme:1")
    assert (done.returncode, done.stdout) == (0, content(store, "mine:1", "etc/passwd").decode()), done.stderr


def test_what_buildah_pushed_is_pulled(registry: Registry, store: ImageStore, tmp_path: Path) -> None:
    lab.need("buildah")
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/made").write_text("by buildah")
    name = f"{registry.host}/buildah/app:1"

    def buildah(*arguments: str | Path) -> str:
        storage = ("--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs")
        return lab.run("buildah", *storage, *arguments).strip()

    container = buildah("from", "scratch")
    buildah("copy", container, tmp_path / "root", "/")
    buildah("config", "--cmd", "/bin/x", "--env", "A=b", "--stop-signal", "SIGUSR1", container)
    buildah("commit", "--quiet", "--format", "docker", container, "made")
    buildah("push", "--quiet", "--tls-verify=false", "made", f"docker://{name}")
    pulled = fetch(store, name, plain(registry.host))
    assert content(store, name, "etc/made") == b"by buildah"
    assert (pulled.image.config.cmd, pulled.image.config.env[-1]) == (("/bin/x",), "A=b")
    assert pulled.image.config.stop_signal == "SIGUSR1"


def test_the_option_accepts_what_the_configuration_does_not(registry: Registry, store: ImageStore) -> None:
    done = rawpod("--root", str(store.root.parent), "pull", "--insecure", f"{registry.host}/app:one")
    assert done.returncode == 0, done.stderr
