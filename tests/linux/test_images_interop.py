"""Images between rawpod and skopeo, umoci, podman and buildah, in both directions, with the digests that they find."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from rootfs.images.image import Image
from rootfs.images.load import load
from rootfs.images.platform import here
from rootfs.images.save import DirectoryTarget, TarTarget, save_docker, save_layout
from rootfs.images.store import ImageStore
from tests.image_kills import bring
from tests.image_stores import store
from tests.images import busybox
from tests.rootfs_lab import Archive

__all__ = ["store"]

pytestmark = pytest.mark.userland

Tool = Callable[..., str]

NAME = "quay.io/me/web:1"


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[Tool]:
    """Runs a program; podman and buildah have a storage of their own, which is gone with the test."""
    storage = Path(mkdtemp(prefix="rp-"))  # podman wants a short name
    options = ("--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "vfs")
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    more = {
        "skopeo": ("--policy", str(policy)),
        "podman": options,
        "buildah": options,
        "umoci": (),
    }

    def run(program: str, *words: str) -> str:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
        done = subprocess.run([program, *more[program], *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    shutil.rmtree(storage)


@pytest.fixture
def image(store: ImageStore) -> Image:
    """Two layers, one of which hides a file of the other."""
    upper = Archive().directory("srv").add("srv/page", b"more\n").add("etc/.wh.group").bytes()
    bring(store, NAME, busybox().bytes(), upper)
    return store.get(NAME)


def saved(store: ImageStore, path: Path, docker: bool = False) -> Path:
    with store.ingest() as ingest, open(path, "wb", buffering=0) as file:
        save = save_docker if docker else save_layout
        save(store.places, ingest, [store.find(NAME)], TarTarget(file.fileno()))
    return path


def loaded(root: Path, source: Path, name: str = "") -> Image:
    """In a store of its own."""
    store = ImageStore(root)
    with store.ingest() as ingest:
        (found,) = load(ingest, source, here(), name=name)
    check_trees(found)
    return found


def check_trees(image: Image) -> None:
    assert (image.lowers[-1] / "bin/busybox").stat().st_mode & 0o7777 == 0o755


def test_skopeo_finds_the_same_digests(store: ImageStore, image: Image, tool: Tool, tmp_path: Path) -> None:
    archive = saved(store, tmp_path / "oci.tar")
    found: dict[str, Any] = json.loads(tool("skopeo", "inspect", f"oci-archive:{archive}"))
    assert (found["Digest"], found["Layers"]) == (image.digest, list(image.layers))
    tool("skopeo", "copy", "--preserve-digests", f"oci-archive:{archive}:1", f"oci:{tmp_path}/copy:latest")
    again = loaded(tmp_path / "other", tmp_path / "copy", NAME)
    assert (again.digest, again.id, again.layers, again.config) == (image.digest, image.id, image.layers, image.config)
    docker = saved(store, tmp_path / "docker.tar", docker=True)
    tool("skopeo", "copy", f"docker-archive:{docker}", f"docker-archive:{tmp_path}/copy.tar:{NAME}")
    again = loaded(tmp_path / "third", tmp_path / "copy.tar")
    assert (again.name, again.id, again.layers) == (NAME, image.id, image.layers)


def test_umoci_unpacks_what_we_save(store: ImageStore, image: Image, tool: Tool, tmp_path: Path) -> None:
    with store.ingest() as ingest:
        save_layout(store.places, ingest, [store.find(NAME)], DirectoryTarget(tmp_path / "layout"))
    tool("umoci", "unpack", "--image", f"{tmp_path}/layout:1", str(tmp_path / "bundle"))
    root = tmp_path / "bundle/rootfs"
    assert (root / "srv/page").read_text() == "more\n"
    assert (root / "etc/passwd").read_bytes() == (image.lowers[1] / "etc/passwd").read_bytes()
    assert not (root / "etc/group").exists()
    (root / "srv/added").write_text("by umoci\n")
    tool("umoci", "repack", "--image", f"{tmp_path}/layout:2", str(tmp_path / "bundle"))
    tool("umoci", "rm", "--image", f"{tmp_path}/layout:1")
    again = loaded(tmp_path / "other", tmp_path / "layout", "repacked")
    assert again.layers[:2] == image.layers
    assert (again.lowers[0] / "srv/added").read_text() == "by umoci\n"


def test_podman_loads_what_we_save_and_we_what_it_saves(
    store: ImageStore, image: Image, tool: Tool, tmp_path: Path
) -> None:
    for docker in (False, True):
        archive = saved(store, tmp_path / f"{docker}.tar", docker)
        assert NAME in tool("podman", "load", "-i", str(archive))
        found = json.loads(tool("podman", "image", "inspect", NAME))[0]
        assert (found["Id"], found["RootFS"]["Layers"]) == (image.id.removeprefix("sha256:"), list(image.layers))
        tool("podman", "rmi", NAME)
    tool("podman", "load", "-i", str(archive))
    for form in ("oci-archive", "docker-archive", "oci-dir"):
        tool("podman", "save", "--format", form, "-o", str(tmp_path / form), NAME)
        again = loaded(tmp_path / f"store-{form}", tmp_path / form, NAME if form == "oci-dir" else "")
        assert (again.name, again.layers, again.config.env) == (NAME, image.layers, image.config.env)
        assert form != "docker-archive" or again.id == image.id


def test_what_buildah_builds_is_loaded(tool: Tool, tmp_path: Path) -> None:
    root = tmp_path / "root.tar"
    busybox().write(root)
    container = tool("buildah", "from", "scratch").strip()
    tool("buildah", "add", container, str(root), "/")
    words = (
        "--cmd",
        '["id", "-u"]',
        "--env",
        "A=b",
        "--user",
        "web",
        "--port",
        "80",
        "--label",
        "x=y",
        "--volume",
        "/v",
    )
    tool("buildah", "config", *words, "--workingdir", "/srv", "--stop-signal", "SIGQUIT", container)
    for form, target in (
        ("oci", f"oci-archive:{tmp_path}/a.tar:{NAME}"),
        ("docker", f"docker-archive:{tmp_path}/b.tar:{NAME}"),
    ):
        tool("buildah", "commit", "--format", form, container, target)
    for archive in ("a.tar", "b.tar"):
        config = loaded(tmp_path / f"store-{archive}", tmp_path / archive, NAME).config
        assert "A=b" in config.env
        assert (config.cmd, config.user, config.working_dir) == (("id", "-u"), "web", "/srv")
        assert (config.stop_signal, config.volumes) == ("SIGQUIT", ("/v",))
        assert (config.exposed_ports[0].partition("/")[0], config.labels["x"]) == ("80", "y")
