"""Images of Debian packages by mmdebstrap, from a repository of our own: no test depends on a mirror."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from kernel.errors import BadInput, HostError, RawpodError
from rootfs.images.debian import Base, build_base
from rootfs.images.image import Image
from rootfs.images.store import ImageStore
from runtime.settings import Settings
from tests.linux.test_run import Rawpod, rawpod
from tests.registry_lab import need, run

__all__ = ["rawpod"]

pytestmark = pytest.mark.userland

RELEASED = 1_600_000_000


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A line of sources.list for a repository with the package `box`: a busybox, and a file of its own owner."""
    need("mmdebstrap", "dpkg-deb", "busybox")
    where = tmp_path_factory.mktemp("repository")
    where.chmod(0o755)
    root = where / "box"
    for name in ("DEBIAN", "bin", "etc"):
        (root / name).mkdir(parents=True)
    control = {"Package": "box", "Version": "1", "Architecture": "all", "Maintainer": "x <x@y>", "Description": "a box"}
    text = "".join(f"{key}: {value}\n" for key, value in control.items())
    (root / "DEBIAN/control").write_text(text)
    program = shutil.which("busybox")
    assert program is not None
    shutil.copy(program, root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    (root / "etc/shadow").write_text("root:*:40000:0:99999:7:::\nold:*:10:0:99999:7:::\n")
    (root / "etc/shadow").chmod(0o640)
    deb = where / "box_1_all.deb"
    run("dpkg-deb", "--root-owner-group", "--build", root, deb)
    shutil.rmtree(root)
    data = deb.read_bytes()
    text += f"Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (where / "Packages").write_text(text)
    packages = text.encode()
    digest = hashlib.sha256(packages).hexdigest()
    release = f"Date: Sun, 13 Sep 2020 12:26:40 UTC\nSHA256:\n {digest} {len(packages)} Packages\n"
    (where / "Release").write_text(release)
    return f"deb [trusted=yes] copy:{where} ./"


def build(store: ImageStore, repository: str, *include: str, source_date: int | None = None) -> Image:
    with store.ingest() as ingest:
        base = Base("trixie", include or ("box",), (repository,), "extract")
        return build_base(ingest, store.places, "base", base, source_date=source_date)


def test_an_image_of_packages_runs_and_is_the_same_the_next_time(
    repository: str, settings: Settings, rawpod: Rawpod
) -> None:
    """Times are those of the release. Fails when _settle() does nothing."""
    command = ("image", "build-base", "base", "--release", "trixie", "--include", "box")
    done = rawpod(*command, "--mirror", repository, "--variant", "extract")
    assert "success" in done.stderr
    store = ImageStore(settings.images)
    image = store.get("base")
    assert done.stdout == f"{image.name} {image.digest}\n"
    script = "while read l; do echo $l; done < /etc/shadow"
    shown = rawpod("run", "--rm", "--network", "none", "base", "/bin/sh", "-c", script)
    assert shown.stdout == f"root:*:{RELEASED // 86400}:0:99999:7:::\nold:*:10:0:99999:7:::\n"
    assert (image.created, image.config.cmd) == (RELEASED, ("/bin/sh",))
    assert (image.lowers[0] / "etc/shadow").stat().st_mode & 0o777 == 0o640
    latest = max(os.lstat(path).st_mtime for path in (image.lowers[0], *image.lowers[0].rglob("*")))
    assert latest == RELEASED
    assert not list((image.lowers[0] / "var/lib/apt/lists").glob("*Release"))
    again = ImageStore(settings.root / "again")
    assert build(again, repository, source_date=RELEASED).digest == image.digest


def test_what_fails_leaves_nothing_and_says_mmdebstraps_reason(repository: str, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    with pytest.raises(RawpodError, match=r"mmdebstrap failed with status [0-9]+: .*nonesuch"):
        build(store, repository, "nonesuch")
    assert [image.name for image in store.list()] == ["host"]
    assert not [*(store.root / "tmp").iterdir(), *(store.root / "layers").iterdir(), *(store.root / "ingest").iterdir()]
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_without_mmdebstrap_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"mmdebstrap is not installed \(apt install mmdebstrap\)"):
        build(ImageStore(tmp_path / "images"), "http://mirror/debian")


@pytest.mark.parametrize(
    ("base", "told"),
    [
        (Base("--help"), "release '--help'"),
        (Base("trixie", ("--x",)), "package '--x'"),
        (Base("trixie", ("a,b;c",)), "package 'a,b;c'"),
        (Base("trixie", (), ("-o",)), "mirror '-o'"),
        (Base("trixie", (), ("http://a\ndeb http://b x y",)), "mirror"),
        (Base("trixie", (), (), "huge"), "unknown variant 'huge'"),
    ],
)
def test_words_that_are_none_never_reach_a_command_line(base: Base, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        base.check()
