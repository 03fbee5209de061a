"""limits.toml: what it sets, and that nothing wrong in it is passed over."""

from pathlib import Path

import pytest

from kernel.errors import BadInput
from rootfs.layers.limits import Limits, read_limits


def read(tmp_path: Path, text: str) -> Limits:
    (tmp_path / "limits.toml").write_text(text)
    return read_limits(tmp_path / "limits.toml")


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert read_limits(tmp_path / "limits.toml") == Limits()


def test_every_limit_can_be_set(tmp_path: Path) -> None:
    text = "total-size = '128Gi'\nfile-size = 5\nentries = 6\nheader-size = '1Ki'\nsegments = 7\ndeadline = 8\n"
    assert read(tmp_path, text + "depth = 9\nratio = 10\n") == Limits(128 << 30, 5, 6, 1024, 7, 8, 9, 10)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ratoi = 5", "did you mean 'ratio'?"),
        ("x = 5", "known are total-size"),
        ("entries = 0", "entries is 0"),
        ("entries = true", "entries is True"),
        ("entries = '5'", "entries is '5'"),
        ("depth = 1.5", "depth is 1.5"),
        ("total-size = '5G'", "'128Gi'"),
        ("total-size = 'Gi'", "total-size is 'Gi'"),
        ("total-size = '-5Gi'", "total-size is '-5Gi'"),
        ("ratio = ", "invalid value"),
        ("ratio = 1\nratio = 2", "cannot overwrite"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert "limits.toml" in str(caught.value)
