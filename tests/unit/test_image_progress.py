"""What pull and push show: bars, lines, or objects for programs."""

from __future__ import annotations

import json

import pytest

from rootfs.registry.pull import Event
from runtime.cli import image_progress
from runtime.cli.image_progress import Bars, Json, Lines, Quiet

ONE, TWO = "sha256:" + "a1" * 32, "sha256:" + "b2" * 32

EVENTS = [
    Event(ONE, "waiting", 0, 2048),
    Event(TWO, "exists", 10, 10),
    *(Event(ONE, "downloading", number, 2048) for number in range(0, 2048, 64)),
    Event(ONE, "downloaded", 2048, 2048),
    Event(ONE, "unpacking", 2048, 2048),
    Event(ONE, "done", 2048, 2048),
]


def test_a_line_is_written_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as progress:
        for event in EVENTS:
            progress(event)
        progress.note("mirror m.io: no answer")
    out, err = capsys.readouterr()
    assert out == ""
    states = ["waiting", "downloading", "downloaded", "unpacking", "done"]
    lines = [f"a1a1a1a1a1a1: {state} (2.0 KiB)" for state in states]
    assert err.splitlines() == [lines[0], "b2b2b2b2b2b2: exists (10 B)", *lines[1:], "rawpod: mirror m.io: no answer"]


def test_programs_are_told_every_change_and_not_every_byte(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Json()
    for event in EVENTS:
        progress(event)
    progress.note("slow")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0] == {"layer": ONE, "state": "waiting", "current": 0, "total": 2048}
    assert told[-1] == {"note": "slow"}
    states = [line["state"] for line in told[:-1]]
    assert list(dict.fromkeys(states)) == ["waiting", "exists", "downloading", "downloaded", "unpacking", "done"]
    assert len(states) < len(EVENTS) / 2


def test_quiet_says_only_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Quiet()
    for event in EVENTS:
        progress(event)
    progress.note("slow")
    assert capsys.readouterr() == ("", "rawpod: slow\n")


def test_bars_end_as_the_layers_do(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as progress:
        for event in EVENTS:
            progress(event)
        progress.note("mirror [m.io]: no answer")
    out, err = capsys.readouterr()
    assert out == ""
    shown = err.splitlines()
    assert "rawpod: mirror [m.io]: no answer" in shown
    assert any(line.startswith("a1a1a1a1a1a1 done") for line in shown)
    assert any(line.startswith("b2b2b2b2b2b2 exists") for line in shown)


@pytest.mark.parametrize(
    ("form", "quiet", "terminal", "kind"),
    [
        ("auto", False, True, Bars),
        ("auto", False, False, Lines),
        ("plain", False, True, Lines),
        ("auto", True, True, Quiet),
        ("json", True, True, Json),
    ],
)
def test_who_reads_decides(
    monkeypatch: pytest.MonkeyPatch, form: str, quiet: bool, terminal: bool, kind: type[Quiet]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert type(image_progress.choose(form, quiet)) is kind


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 40, "3072.0 GiB")]
)
def test_sizes_are_for_people(number: int, text: str) -> None:
    assert image_progress.size(number) == text
