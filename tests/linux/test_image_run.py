"""`rawpod run` and pods of images that a registry has: pulled on the way, by whoever needs them first."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootfs.images.platform import here
from runtime.settings import Settings
from tests import registry_lab as lab
from tests.images import busybox
from tests.linux.test_run import Rawpod, arguments
from tests.pods import Pods, pods
from tests.registry_lab import Layer, Layout, Registry

pytestmark = pytest.mark.userland

__all__ = ["pods"]


class _Root(Layer):
    def tar(self) -> bytes:
        return busybox().bytes()


@pytest.fixture(scope="module")
def registry(host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for a password, with the image web:1 and web:broken, which has a bad stop signal."""
    directory = tmp_path_factory.mktemp("registry")
    layout = Layout(directory / "layout")
    root = [_Root({}, "zstd")]
    fields = {"Entrypoint": ["sh", "-c"], "Env": ["PATH=/bin", "COLOUR=blue"], "User": "web", "WorkingDir": "/srv"}
    script = "echo $COLOUR $(id -u) $(pwd); exec sleep 1000000"
    layout.tag(layout.image(root, here().architecture, Cmd=[script], **fields), "1")
    layout.tag(layout.image(root, here().architecture, StopSignal="SIGNOPE", **fields), "broken")
    with lab.registry(directory / "docker", auth=lab.basic_auth(directory / "auth")) as registry:
        for name in ("1", "broken"):
            login = f"--dest-creds={lab.USER}:{lab.PASSWORD}"
            lab.copy(f"oci:{layout.path}:{name}", f"docker://{registry.host}/web:{name}", login)
        yield registry


@pytest.fixture(name="settings")
def settings_for_the_registry(settings: Settings, registry: Registry, tmp_path: Path) -> Settings:
    """This instance knows that the registry has no TLS."""
    file = tmp_path / "registries.toml"
    file.write_text(f'[registries."{registry.host}"]\ninsecure = "http"\n')
    return settings.replace(registries=file)


@pytest.fixture
def rawpod(settings: Settings) -> Rawpod:
    """Runs the program in the foreground, which leaves no monitor; the registry is our child, and not waited for."""

    def run(*words: str, check: int = 0) -> subprocess.CompletedProcess[str]:
        command = arguments(settings, f"--registries={settings.registries}", *words)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == check, done
        return done

    return run


@pytest.fixture
def login(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(lab.auth_file(tmp_path / "auth.json", registry.host)))


def test_run_pulls_what_is_missing_and_shows_it(
    rawpod: Rawpod, registry: Registry, settings: Settings, login: None
) -> None:
    image = f"{registry.host}/web:1"
    base = ("run", "--rm", "--network", "none")
    refused = rawpod(*base, "--pull", "never", image, "true", check=125).stderr
    assert image in refused
    first = rawpod(*base, image, "echo $COLOUR; id -u; pwd")
    assert first.stdout.split() == ["blue", "33", "/srv"]
    assert "unpacking" in first.stderr
    asked = len(registry.requests())
    assert rawpod(*base, image, "true").stderr == ""
    assert len(registry.requests()) == asked
    rawpod(*base, "--pull", "always", image, "true")
    assert len(registry.requests()) > asked
    failed = rawpod(*base, f"{registry.host}/web:absent", "true", check=125).stderr
    assert f"{registry.host}/web: manifest 'absent'" in failed
    assert "Traceback" not in failed


def test_an_interrupted_pull_leaves_neither_pod_nor_image(rawpod: Rawpod, settings: Settings, tmp_path: Path) -> None:
    """A registry that never answers: Ctrl-C goes to the terminal's whole process group."""
    import signal
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        settings.registries.write_text(f'[registries."{host}"]\ninsecure = "http"\n')
        command = [*arguments(settings, f"--registries={settings.registries}", "run", "--rm", f"{host}/web:1", "true")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            connection, _ = silent.accept()
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(60) == 130
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
        connection.close()
    assert rawpod("ps", "-a").stdout.count("\n") == 1
    assert not settings.overlay.exists() or not list(settings.overlay.iterdir())


def test_a_pod_pulls_with_the_credentials_of_its_secrets(registry: Registry, settings: Settings, pods: Pods) -> None:
    """Without them it waits and says why; a malformed configuration is told with the field that is wrong."""
    image = f"{registry.host}/web:1"
    refused = pods.start({"name": "main", "image": image}, name="refused")
    refused.wait(lambda status: "ErrImagePull" in str(status["containerStatuses"][0]["state"]))
    assert registry.host in refused.state()["state"]["waiting"]["message"]
    auth = base64.b64encode(f"{lab.USER}:{lab.PASSWORD}".encode()).decode()
    content = base64.b64encode(json.dumps({"auths": {registry.host: {"auth": auth}}}).encode()).decode()
    secret = {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": content}}
    given = {"imagePullSecrets": [{"name": "mine"}], "values": {"Secret": {"mine": secret}}}
    pod = pods.start({"name": "main", "image": image}, **given)
    pod.running()
    assert next(pod.follow("main")).output == b"blue 33 /srv\n"
    assert pod.state()["imageID"].startswith("sha256:")
    broken = pods.start({"name": "main", "image": f"{registry.host}/web:broken"}, name="broken", **given)
    broken.wait(lambda status: "CreateContainerError" in str(status["containerStatuses"][0]["state"]))
    assert "config.StopSignal: unknown signal 'SIGNOPE'" in broken.state()["state"]["waiting"]["message"]
