"""`rawpod image` as its user meets it: shown, named, removed; committed from containers; from and to files."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click import ClickException
from click.testing import CliRunner

from kernel.errors import Conflict, NotSupported, RawpodError
from rootfs.images.document import ImageError
from rootfs.images.store import ImageStore
from runtime.cli.image import image as commands
from runtime.settings import Settings
from tests.images import busybox, make_image
from tests.linux.test_run import Rawpod, arguments, rawpod

__all__ = ["rawpod"]

pytestmark = pytest.mark.userland

SLEEP = "exec sleep 1000000"


@contextmanager
def pod(rawpod: Rawpod, name: str, image: str, command: str, *options: str) -> Iterator[None]:
    """A pod of one container that has run `command` and goes on; none is left behind."""
    script = f"{command}; touch /tmp/ready; {SLEEP}"
    rawpod("run", "-d", "--network", "none", "--name", name, *options, image, "sh", "-c", script)
    try:
        rawpod("exec", name, "sh", "-c", "until test -e /tmp/ready; do sleep 0.01; done")
        yield
    finally:
        rawpod("rm", "-f", name)


def output(settings: Settings, *words: str, stdin: bytes = b"") -> bytes:
    """What the program `rawpod image …` writes."""
    done = subprocess.run(arguments(settings, "image", *words), input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def image(settings: Settings, *words: str) -> str:
    """What `rawpod image …` writes, in this process; to start one costs most. Raises what it would say."""
    done = CliRunner().invoke(commands, words, obj=settings, standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.stdout


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {member.name: member for member in archive}


def shown(settings: Settings, *words: str) -> Any:
    return json.loads(image(settings, *words))


def test_images_are_listed_and_shown(settings: Settings) -> None:
    made = make_image(settings.images, "web:1", labels={"rawpod.uid": "x"}, cmd=("sh",))
    host, web = shown(settings, "ls", "-o", "json")
    assert host["name"] == "host"
    assert web == {
        "name": "web:1",
        "digest": made.digest,
        "id": made.id,
        "size": made.size,
        "created": made.created,
        "platform": made.platform,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "layers": list(made.layers),
    }
    table = image(settings, "ls").splitlines()
    assert table[0].split() == ["NAME", "DIGEST", "SIZE", "CREATED"]
    assert table[2].split()[:2] == ["web:1", made.digest[7:19]]
    assert made.digest in image(settings, "ls", "--digests")
    assert image(settings, "ls", "-q").split()[1] == made.id
    assert image(settings, "ls", "-o", "name") == "host\nweb:1\n"
    (details,) = shown(settings, "inspect", made.id[7:19])
    assert details["config"]["config"]["Labels"] == {"rawpod.uid": "x"}
    assert details["layers"][0]["diffID"] == made.layers[0] == details["config"]["rootfs"]["diff_ids"][0]
    assert details["manifest"]["config"]["digest"] == made.id
    (step,) = shown(settings, "history", "web:1", "-o", "json")
    assert (step["createdBy"], step["diffID"], step["size"]) == ("rawpod image import", made.layers[0], made.size)
    assert "rawpod image import" in image(settings, "history", "web:1")
    assert shown(settings, "inspect", "host")[0]["name"] == "host"


def test_row_23_an_images_labels_are_data(rawpod: Rawpod, settings: Settings) -> None:
    """CVE-2026-53488. Seen to run as another user with an image's labels added to the pod's annotations."""
    labels = {"rawpod.dev/user": "33", "rawpod.dev/pids-limit": "1", "rawpod.dev/stop-signal": "KILL"}
    make_image(settings.images, "web", labels=labels)
    assert rawpod("run", "--rm", "--network", "none", "web", "id", "-u").stdout == "0\n"


def test_terminals_are_shown_no_control_characters_of_strangers(settings: Settings, tmp_path: Path) -> None:
    """Seen to get them without _plain()."""
    image(settings, "import", "web", str(busybox().write(tmp_path / "root.tar")), "-m", "a\x1b[2Jb\nc")
    assert "a [2Jb c" in image(settings, "history", "web")


def test_an_image_of_a_container_is_neither_removed_nor_pruned(rawpod: Rawpod, settings: Settings) -> None:
    """Seen to go with bundles that are not looked at."""
    made = make_image(settings.images, "web")
    make_image(settings.images, "other", busybox().add("etc/more", b"x"))
    with pod(rawpod, "pod", "web", "true"):
        with pytest.raises(Conflict, match="in use"):
            image(settings, "rm", "web")
        assert image(settings, "prune", "-a").splitlines()[0] == "other:latest"
        image(settings, "tag", "web", "quay.io/me/web:2")
        assert image(settings, "rm", "web") == "web:latest\n"
        image(settings, "rm", "-f", "quay.io/me/web:2")
        assert "<none>" in image(settings, "ls")
        image(settings, "prune", "-a")
        assert rawpod("exec", "pod", "cat", "/etc/group").stdout
    assert image(settings, "prune").splitlines()[0] == made.digest
    assert [found.name for found in ImageStore(settings.images).list()] == ["host"]


def test_what_a_container_wrote_becomes_a_layer(rawpod: Rawpod, settings: Settings) -> None:
    base = make_image(settings.images, "web", env=("A=1",), cmd=("sh",), labels={"a": "b"})
    script = "echo more > /etc/more; rm /etc/group; touch /etc/old; busybox chmod 4711 /etc/old"
    with pod(rawpod, "pod", "web", script):
        done = output(settings, "commit", "pod", "web:2", "-a", "me", "-m", "why", "-c", 'CMD ["cat", "/etc/more"]')
        nameless = output(settings, "commit", "pod", "--no-pause").decode().strip()
    store = ImageStore(settings.images)
    check_store(store)
    made = store.get("web:2")
    assert done.decode() == f"web:2 {made.digest}\n"
    assert made.layers[:1] == base.layers
    assert made.config == base.config._replace(cmd=("cat", "/etc/more"))
    assert store.get(nameless).config == base.config
    newest, oldest = shown(settings, "history", "web:2", "-o", "json")
    assert (newest["author"], newest["comment"], newest["diffID"]) == ("me", "why", made.layers[1])
    assert oldest["createdBy"] == "rawpod image import"
    assert rawpod("run", "--rm", "--network", "none", "web:2").stdout == "more\n"
    words = ("stat", "-c", "%a", "/etc/old", "/etc/group")
    found = rawpod("run", "--rm", "--network", "none", "web:2", *words, check=1)
    assert found.stdout == "4711\n"
    assert "/etc/group" in found.stderr


def check_store(store: ImageStore) -> None:
    for image in store.list():
        assert all(lower.exists() for lower in image.lowers)


def test_a_container_with_users_of_its_own_is_committed_with_the_images(rawpod: Rawpod, settings: Settings) -> None:
    """Seen to have the host's ids without the maps."""
    make_image(settings.images, "web")
    with pod(rawpod, "pod", "web", "echo x > /tmp/mine; busybox chown 33:34 /tmp/mine", "--userns", "auto"):
        output(settings, "commit", "pod", "web:2")
        exported = members(output(settings, "export", "pod"))
    for found in (exported, members(output(settings, "export", "web:2"))):
        assert (found["tmp/mine"].uid, found["tmp/mine"].gid) == (33, 34)


def test_a_root_is_exported_from_an_image_and_from_a_container(
    rawpod: Rawpod, settings: Settings, tmp_path: Path
) -> None:
    make_image(settings.images, "web")
    with pod(rawpod, "web", "web", "echo more > /etc/more; rm /etc/group"):
        container = members(output(settings, "export", "web"))
        image(settings, "export", "--image", "web", "-o", str(tmp_path / "web.tar"))
    of_image = members((tmp_path / "web.tar").read_bytes())
    assert {"etc/passwd", "bin/busybox"} <= set(of_image) & set(container)
    assert ("etc/group" in of_image, "etc/more" in of_image) == (True, False)
    assert ("etc/group" in container, "etc/more" in container) == (False, True)
    image(settings, "import", "again", str(tmp_path / "web.tar"))
    assert rawpod("run", "--rm", "--network", "none", "again", "cat", "/etc/group").stdout
    with pytest.raises(NotSupported, match="cannot be packed"):
        image(settings, "export", "host", "-o", str(tmp_path / "host.tar"))


def test_images_go_through_pipes(rawpod: Rawpod, settings: Settings, tmp_path: Path) -> None:
    made = make_image(settings.images, "web", cmd=("id", "-u"))
    for form in ("oci-archive", "docker-archive"):
        archive = output(settings, "save", "--format", form, "web")
        assert output(settings, "load", stdin=archive).startswith(b"web:latest sha256:")
        assert ImageStore(settings.images).get("web").id == made.id
    image(settings, "save", "--format", "oci-dir", "-o", str(tmp_path / "layout"), "web")
    loaded = image(settings, "load", "-i", str(tmp_path / "layout"), "--name", "second")
    assert loaded.startswith("second:latest sha256:")
    tar = busybox().write(tmp_path / "root.tar").read_bytes()
    words = ("--entrypoint", "busybox echo", "--cmd", '["a b"]', "-e", "A=1", "-u", "web", "-w", "/etc", "-l", "x=y")
    output(settings, "import", "third", "-", *words, stdin=tar)
    assert rawpod("run", "--rm", "--network", "none", "third").stdout == "a b\n"
    check_store(ImageStore(settings.images))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("tag", "host", "x"), "has no other name"),
        (("tag", "web", "../x"), "character 1"),
        (("rm", "missing"), "'missing' does not exist"),
        (("rm", "host"), "always there"),
        (("save", "-o", "/dev/null", "host"), "cannot be saved"),
        (("save", "--format", "oci-dir", "web"), "-o DIRECTORY"),
        (("load", "-i", "/dev/null"), "not a regular file"),
        (("load", "--platform", "a/b/c/d", "-i", "x"), "OS/ARCHITECTURE"),
        (("commit", "missing"), "missing"),
        (("import", "x", "/missing"), "cannot open"),
        (("import", "x", "/missing", "-c", "RUN x"), "'RUN' is not known"),
        (("import", "x", "/missing", "-e", "A"), "not NAME=VALUE"),
        (("history", "host"), "has no history"),
    ],
)
def test_what_cannot_be_done_is_told(settings: Settings, words: tuple[str, ...], reason: str) -> None:
    with pytest.raises((RawpodError, ClickException)) as caught:
        image(settings, *words)
    assert reason in str(caught.value)


def test_a_file_is_saved_whole_or_not_at_all(settings: Settings, tmp_path: Path) -> None:
    """Seen to be lost with the file itself written to."""
    make_image(settings.images, "web")
    (tmp_path / "web.tar").write_text("before")
    store = ImageStore(settings.images)
    store.places.blob(store.find("web").blobs[-1]).unlink()
    with pytest.raises(ImageError, match="not in the image store"):
        image(settings, "save", "-o", str(tmp_path / "web.tar"), "web")
    assert [(path.name, path.read_text()) for path in tmp_path.glob("*web*")] == [("web.tar", "before")]
