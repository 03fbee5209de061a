"""Reading an image's accounts: from its layers alone, regular files only, in bounded memory, never the host's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.errors import ContainerError
from runtime.pod.users import MAX_ACCOUNTS_BYTES, Accounts, read_accounts

Layer = Callable[..., Path]


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    """Makes a layer's directory, with an /etc/passwd of the given contents."""

    def make(name: str, passwd: bytes | None = None) -> Path:
        etc = tmp_path / name / "etc"
        etc.mkdir(parents=True)
        if passwd is not None:
            (etc / "passwd").write_bytes(passwd)
        return etc.parent

    return make


def test_the_topmost_layer_that_has_the_file_wins(layer: Layer) -> None:
    layers = [layer("c"), layer("b", b"b"), layer("a", b"a")]
    assert read_accounts(layers) == Accounts(passwd=b"b")


def test_an_image_without_accounts_has_none(tmp_path: Path) -> None:
    assert read_accounts([tmp_path]) == Accounts()


def test_a_whiteout_hides_the_layers_below(layer: Layer) -> None:
    top, bottom = layer("top"), layer("bottom", b"deleted")
    os.mknod(top / "etc" / "passwd", 0o20600, os.makedev(0, 0))
    assert read_accounts([top, bottom]) == Accounts()


def test_an_opaque_directory_hides_the_layers_below(layer: Layer) -> None:
    top, bottom = layer("top"), layer("bottom", b"hidden")
    os.setxattr(top / "etc", "trusted.overlay.opaque", b"y")
    assert read_accounts([top, bottom]) == Accounts()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../etc/passwd", "/dev/zero", "passwd"])
def test_a_symbolic_link_is_refused(layer: Layer, target: str) -> None:
    """CVE-2024-9676: the link would be followed on the host.

    Checked by taking O_NOFOLLOW out of users._read_in: then all four targets fail here.
    """
    top = layer("top")
    (top / "etc" / "passwd").symlink_to(target)
    with pytest.raises(ContainerError, match="not a regular file"):
        read_accounts([top])


@pytest.mark.parametrize("target", ["/etc", "../../../../../etc"])
def test_a_linked_directory_never_leads_to_the_host(tmp_path: Path, target: str) -> None:
    """Checked by opening the path without RESOLVE_IN_ROOT in users._read_in: then the host's accounts are read."""
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer" / "etc").symlink_to(target)
    with pytest.raises(ContainerError, match="cannot be read"):
        read_accounts([tmp_path / "layer"])


def test_a_fifo_is_refused_at_once(layer: Layer) -> None:
    top = layer("top")
    os.mkfifo(top / "etc" / "passwd")
    with pytest.raises(ContainerError, match="not a regular file"):
        read_accounts([top])


def test_a_huge_file_is_refused(layer: Layer) -> None:
    top = layer("top")
    with (top / "etc" / "passwd").open("wb") as file:
        file.truncate(MAX_ACCOUNTS_BYTES + 1)
    with pytest.raises(ContainerError, match="not a regular file"):
        read_accounts([top])


def test_no_descriptor_is_left_open(layer: Layer) -> None:
    before = len(os.listdir("/proc/self/fd"))
    read_accounts([layer("b"), layer("a", b"a")])
    assert len(os.listdir("/proc/self/fd")) == before
