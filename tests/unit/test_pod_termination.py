"""Termination messages: what is read of the file and the log of a container that has ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.pod.logs import LogDirectory, LogWriter
from runtime.pod.termination import TerminationMessage, limit_of


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Logs of a container that wrote a hundred lines of 40 bytes."""
    directory = LogDirectory(tmp_path / "log", "default_p_u", "main")
    writer = LogWriter(directory, 0)
    for number in range(100):
        writer.write("stdout", b"%039d\n" % number)
    writer.close()
    return directory.path


def message(tmp_path: Path, *, falls_back: bool = False, limit: int = 4096) -> TerminationMessage:
    made = TerminationMessage(tmp_path / "message", falls_back, limit)
    made.create(os.getuid())
    return made


def test_any_user_of_the_container_may_write_it(tmp_path: Path) -> None:
    assert message(tmp_path).path.stat().st_mode & 0o777 == 0o666


def test_the_end_counts(tmp_path: Path, logs: Path) -> None:
    made = message(tmp_path)
    made.path.write_bytes(b"x" * 5000 + b"end\xff")
    text = made.read(failed=False, logs=logs)
    assert (len(text), text[-4:]) == (4096, "end\ufffd")


@pytest.mark.parametrize(
    ("falls_back", "failed", "written", "begins"),
    [
        (True, True, "", "00"),
        (True, True, "own", "own"),
        (True, False, "", ""),
        (False, True, "", ""),
    ],
)
def test_the_log_stands_in_for_a_failure_without_a_message(
    tmp_path: Path, logs: Path, falls_back: bool, failed: bool, written: str, begins: str
) -> None:
    made = message(tmp_path, falls_back=falls_back)
    made.path.write_text(written)
    text = made.read(failed=failed, logs=logs)
    assert text.startswith(begins)
    if begins == "00":
        assert len(text) == 2048
        assert text.endswith(f"{99:039}\n")
    else:
        assert text == written


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path, logs: Path) -> None:
    """Fails when O_NOFOLLOW is taken out of the reading."""
    made = message(tmp_path)
    made.path.unlink()
    (tmp_path / "secret").write_text("secret")
    made.path.symlink_to(tmp_path / "secret")
    assert "secret" not in made.read(failed=False, logs=logs)


def test_a_pipe_in_the_place_of_the_file_keeps_nobody_waiting(tmp_path: Path, logs: Path) -> None:
    made = message(tmp_path)
    made.path.unlink()
    os.mkfifo(made.path)
    assert made.read(failed=False, logs=logs) == "Error on reading termination log: it is no file"


def test_messages_of_many_containers_are_shorter() -> None:
    assert [limit_of(count) for count in (1, 3, 4, 12)] == [4096, 4096, 3072, 1024]
