"""The `host` image: runs the machine's programs, holds none of its secrets."""

import os
import stat
from pathlib import Path

import pytest

from rootfs import host
from rootfs.mounts import Bind, Proc
from tests.rootfs_lab import assembled

SECRET = "-----BEGIN PRIVATE KEY-----\n"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A small machine with secrets in all the usual places."""
    root = tmp_path / "machine"
    files = {
        "etc/ld.so.cache": "cache",
        "etc/shadow": "root:hash:",
        "etc/gshadow": "root:hash:",
        "etc/passwd": "alice:x:1000:1000::/home/alice:/bin/sh\n",
        "etc/machine-id": "0123",
        "etc/hostname": "secret-host",
        "etc/hosts": "10.0.0.1 secret-host",
        "etc/resolv.conf": "nameserver 10.9.9.9",
        "etc/environment": "TOKEN=secret-token",
        "etc/ssh/ssh_host_ed25519_key": SECRET,
        "etc/ssl/private/key.pem": SECRET,
        "etc/ssl/certs/ca.pem": "-----BEGIN CERTIFICATE-----\n",
        "etc/ssl/certs/both.pem": "-----BEGIN CERTIFICATE-----\n" + SECRET,
        "etc/ssl/certs/unreadable.pem": "-----BEGIN CERTIFICATE-----\n",
        "etc/mime.types": "text/html html\n",
        "etc/krb5.keytab": "secret-token",
        "usr/bin/true": "",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "etc/ssl/certs/unreadable.pem").chmod(0o600)
    (root / "bin").symlink_to("usr/bin")
    (root / "lib").mkdir()
    return root


def test_it_holds_what_programs_need_and_no_secret(machine: Path, tmp_path: Path) -> None:
    image = host.ensure(tmp_path / "images", str(machine))
    etc = image.root / "etc"
    assert (etc / "ld.so.cache").read_text() == "cache"
    assert (etc / "mime.types").exists()
    assert os.listdir(etc / "ssl/certs") == ["ca.pem"]
    for absent in ("shadow", "gshadow", "machine-id", "ssh", "ssl/private", "krb5.keytab"):
        assert not (etc / absent).exists()
    everything = "".join(path.read_text() for path in image.root.rglob("*") if path.is_file() and not path.is_symlink())
    for word in ("alice", "secret", "hash", "PRIVATE", "10.9.9.9"):
        assert word not in everything


def test_its_directories_have_the_modes_of_a_fresh_system(machine: Path, tmp_path: Path) -> None:
    root = host.ensure(tmp_path / "images", str(machine)).root
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("root", "tmp", "var/tmp", "etc", ".")}
    assert modes == {"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777, "etc": 0o755, ".": 0o755}
    assert stat.S_IMODE((root / "etc/passwd").stat().st_mode) == 0o644


def test_links_of_a_merged_usr_are_the_machines_and_directories_are_bound(machine: Path, tmp_path: Path) -> None:
    image = host.ensure(tmp_path / "images", str(machine))
    assert os.readlink(image.root / "bin") == "usr/bin"
    assert [bind.destination for bind in image.binds] == ["/usr", "/lib"]
    assert not (image.root / "sbin").exists()


def test_it_is_made_once_and_anew_when_the_machine_changes(machine: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    first = host.ensure(images, str(machine))
    assert host.ensure(images, str(machine)) == first
    (machine / "etc/ld.so.cache").write_text("another cache")
    second = host.ensure(images, str(machine))
    assert second.digest != first.digest
    assert (second.root / "etc/ld.so.cache").read_text() == "another cache"
    assert first.root.exists(), "containers may still use it"
    assert host.prune(images, frozenset()) == [first.digest]
    assert not first.root.exists()
    assert second.root.exists()
    (machine / "etc/shadow").write_text("changed")
    assert host.ensure(images, str(machine)) == second


def test_one_that_was_cut_short_is_made_again(machine: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "host/tmp-root/etc").mkdir(parents=True)
    (images / "host/current.json").write_text('{"signature": "')
    image = host.ensure(images, str(machine))
    assert sorted(os.listdir(images / "host")) == ["current.json", image.digest.replace(":", "-")]


def test_the_machines_own_programs_run_in_it(tmp_path: Path) -> None:
    image = host.ensure(tmp_path / "images")

    def look(_: object) -> list[object]:
        import subprocess

        done = subprocess.run(["/bin/sh", "-c", "id -un; getent hosts localhost"], capture_output=True, text=True)
        return [done.stdout.split()[0], done.stderr]

    from rootfs.mounts import PivotRoot

    binds = [Bind(bind.source, bind.destination) for bind in image.binds]
    assert assembled(image.root, [Proc("/proc"), *binds, PivotRoot()], look) == ["root", ""]
