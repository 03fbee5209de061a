"""The CRI log format, its rotation, and reading it back."""

import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import BadInput, RawpodError
from runtime.pod import logoptions, logread, logs
from runtime.pod.logs import LINE_LIMIT, LogDirectory, LogWriter


@pytest.fixture
def directory(tmp_path: Path) -> LogDirectory:
    return LogDirectory.of(tmp_path / "log", "default", "web", "8f14", "main")


def output(directory: LogDirectory, **options: int) -> bytes:
    return b"".join(entry.output for entry in logread.read(directory.path, **options))


def test_a_line_has_time_stream_tag_and_text(directory: LogDirectory) -> None:
    writer = LogWriter(directory, 0)
    writer.write("stdout", b"hello\n")
    writer.write("stderr", b"oh\n")
    writer.close()
    lines = (directory.path / "0.log").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stdout F hello", lines[0])
    assert lines[1].endswith(" stderr F oh")
    assert (directory.path / "0.log").stat().st_mode & 0o777 == 0o640


def test_a_line_in_pieces_is_logged_once_and_streams_do_not_mix(directory: LogDirectory) -> None:
    writer = LogWriter(directory, 0)
    writer.write("stdout", b"one ")
    writer.write("stderr", b"two\n")
    writer.write("stdout", b"line\nrest")
    writer.close()
    entries = [(entry.stream, entry.full, entry.text) for entry in logread.read(directory.path)]
    assert entries == [("stderr", True, b"two"), ("stdout", True, b"one line"), ("stdout", False, b"rest")]


def test_a_long_line_becomes_partial_entries(directory: LogDirectory) -> None:
    writer = LogWriter(directory, 0)
    writer.write("stdout", b"x" * (2 * LINE_LIMIT + 1) + b"\n" + b"y" * LINE_LIMIT + b"\n")
    writer.close()
    entries = [(entry.full, len(entry.text)) for entry in logread.read(directory.path)]
    assert entries == [(False, LINE_LIMIT), (False, LINE_LIMIT), (True, 1), (True, LINE_LIMIT)]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"\n", b"a" * 9000, b"\n\n", b"b" * 40000])), max_size=20
    )
)
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    directory = LogDirectory.of(tmp_path_factory.mktemp("logs"), "default", "web", "8f14", "main")
    writer = LogWriter(directory, 0, max_size=50_000, max_files=100)
    for chunk in chunks:
        writer.write("stdout", chunk)
    writer.close()
    assert output(directory) == b"".join(chunks)
    assert all(len(entry.text) <= LINE_LIMIT for entry in logread.read(directory.path))


def test_rotation_bounds_what_is_kept_and_loses_nothing_within(directory: LogDirectory) -> None:
    writer = LogWriter(directory, 3, max_size=1000, max_files=3)
    for number in range(200):
        writer.write("stdout", b"%06d\n" % number)
    writer.close()
    assert [path.name for path in logread.files(directory.path)] == ["3.log.2", "3.log.1", "3.log"]
    assert all(path.stat().st_size <= 1000 for path in logread.files(directory.path))
    numbers = [int(line) for line in output(directory).split()]
    assert numbers == list(range(numbers[0], 200))


def test_only_the_last_two_attempts_are_kept(directory: LogDirectory) -> None:
    for attempt in range(5):
        LogWriter(directory, attempt).close()
    assert sorted(os.listdir(directory.path)) == ["3.log", "4.log"]


@pytest.mark.parametrize(("lines", "expected"), [(0, b""), (1, b"4\n"), (3, b"2\n3\n4\n"), (9, b"0\n1\n2\n3\n4\n")])
def test_tail(directory: LogDirectory, lines: int, expected: bytes) -> None:
    writer = LogWriter(directory, 0, max_size=60, max_files=9)
    for number in range(5):
        writer.write("stdout", b"%d\n" % number)
    writer.close()
    assert output(directory, tail=lines) == expected


def test_follow_goes_over_rotation_and_restart_until_the_end(directory: LogDirectory, tmp_path: Path) -> None:
    writers = [LogWriter(directory, 0, max_size=500, max_files=50)]
    pod = tmp_path / "pod"
    pod.mkdir()
    received = threading.Event()

    def produce() -> None:
        assert received.wait(60)
        for attempt in (0, 1):
            if attempt:
                writers.append(LogWriter(directory, 1, max_size=500, max_files=50))
            for number in range(50):
                writers[-1].write("stdout", b"%d\n" % (attempt * 50 + number))
            writers[-1].close()
        (pod / "new").write_text("over")
        (pod / "new").rename(pod / "status.json")

    thread = threading.Thread(target=produce)
    thread.start()
    writers[0].write("stdout", b"first\n")
    seen = []
    for entry in logread.follow(directory.path, watched=pod, ended=lambda: (pod / "status.json").exists()):
        seen.append(entry.text)
        received.set()
    thread.join()
    assert seen == [b"first", *(b"%d" % number for number in range(100))]


def test_a_symbolic_link_in_place_of_the_log_is_refused(directory: LogDirectory, tmp_path: Path) -> None:
    """CVE-2026-53489: a planted link must not redirect log output. Fails when O_NOFOLLOW is taken out of LogWriter."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.close(directory.open())
    (directory.path / "0.log").symlink_to(victim)
    with pytest.raises(RawpodError, match="log file"):
        LogWriter(directory, 0)
    assert victim.read_text() == "precious"


def test_a_symbolic_link_in_place_of_a_directory_is_refused(directory: LogDirectory, tmp_path: Path) -> None:
    """CVE-2026-53489, one level up. Fails when O_NOFOLLOW is taken out of LogDirectory.open."""
    (tmp_path / "elsewhere").mkdir()
    directory.path.parent.mkdir(parents=True)
    directory.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RawpodError, match="log directory"):
        LogWriter(directory, 0)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["..", "a/b", "", "a\0b", "x" * 256])
def test_a_container_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    """CVE-2025-0750: a name never leads out of the log directory. Fails when the check in LogDirectory.open goes."""
    with pytest.raises(BadInput):
        LogWriter(LogDirectory.of(tmp_path, "default", "web", "8f14", name), 0)


def test_remove_finds_the_directory_by_uid(directory: LogDirectory, tmp_path: Path) -> None:
    LogWriter(directory, 0).close()
    other = LogDirectory.of(tmp_path / "log", "default", "web", "other", "main")
    LogWriter(other, 0).close()
    logs.remove(tmp_path / "log", "8f14")
    assert not directory.path.exists()
    assert other.path.exists()
    logs.remove(tmp_path / "log", "8f14")


def test_a_reader_that_is_slower_than_the_writer_gets_every_line_of_the_files_it_could_open(
    directory: LogDirectory,
) -> None:
    """Fails without the deque of open files: two files are kept here, and ten go by while one is read."""
    writer = LogWriter(directory, 0, max_size=1000, max_files=2)
    numbers = iter(range(1_000_000))

    def fill_a_file() -> None:
        for _ in range(20):
            writer.write("stdout", b"%d\n" % next(numbers))

    fill_a_file()
    reader = logread.Reader(directory.path)
    seen = [entry.text for entry in reader.begin(None)]
    for entry in reader.drain():
        seen.append(entry.text)
    for _ in range(10):
        fill_a_file()
        reader.notice()
    writer.close()
    seen += [entry.text for entry in reader.drain()]
    reader.close()
    assert seen == [b"%d" % number for number in range(220)]


def test_a_reader_that_slept_over_all_files_says_that_lines_are_missing(directory: LogDirectory) -> None:
    writer = LogWriter(directory, 0, max_size=1000, max_files=2)
    writer.write("stdout", b"first\n")
    reader = logread.Reader(directory.path)
    seen = [entry.text for entry in reader.begin(None)]
    for number in range(300):
        writer.write("stdout", b"%d\n" % number)
    writer.close()
    seen += [entry.text for entry in reader.drain()]
    reader.close()
    assert seen[0] == b"first" and seen[-1] == b"299"
    assert sum(b"lines are missing" in text for text in seen) == 1


def test_a_fast_writer_is_followed_over_rotations_without_a_gap(directory: LogDirectory) -> None:
    over = threading.Event()
    writer = LogWriter(directory, 0, max_size=200_000, max_files=20)
    total = 60_000

    def produce() -> None:
        for number in range(0, total, 20):
            writer.write("stdout", b"".join(b"%d %s\n" % (line, b"x" * 60) for line in range(number, number + 20)))
        over.set()
        writer.write("stdout", b"last\n")
        writer.close()

    thread = threading.Thread(target=produce)
    entries = logread.follow(directory.path, ended=over.is_set)
    thread.start()
    seen = [int(entry.text.split()[0]) for entry in entries if entry.text != b"last"]
    thread.join()
    assert seen == list(range(total))


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("5s", 5), ("1h30m", 5400), ("1.5m", 90), ("250ms", 0.25)])
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert logoptions.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-5s", "5 s", "1d", "s", "٥s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="duration"):
        logoptions.duration(text)


def test_a_moment_is_brought_to_utc_and_nanoseconds() -> None:
    assert logoptions.moment("2026-01-02T01:04:05.5+02:00") == "2026-01-01T23:04:05.500000000Z"
    assert logoptions.moment("2026-01-02T03:04:05.123456789Z") == "2026-01-02T03:04:05.123456789Z"
    for wrong in ("2026-01-02", "2026-13-02T03:04:05Z", "yesterday", "2026-01-02T03:04:05"):
        with pytest.raises(BadInput, match="RFC 3339"):
            logoptions.moment(wrong)


def test_time_prefix_and_limit_are_applied_to_what_is_shown() -> None:
    old = logread.Entry("2026-01-01T00:00:00.000000000Z", "stdout", True, b"old")
    part = logread.Entry("2026-01-02T00:00:00.000000000Z", "stdout", False, b"be")
    rest = logread.Entry("2026-01-03T00:00:00.000000000Z", "stdout", True, b"gun")
    shown = logoptions.Shown(logoptions.LogOptions(since=part.time, timestamps=True))
    assert [shown.text(entry, "[x] ") for entry in (old, part, rest)] == [b"", f"[x] {part.time} be".encode(), b"gun\n"]
    limited = logoptions.Shown(logoptions.LogOptions(limit=4))
    assert [limited.text(entry) for entry in (old, rest)] == [b"old\n", b""]
    assert limited.done


def test_the_previous_attempt_is_the_one_that_ended_last(directory: LogDirectory) -> None:
    for attempt in range(2):
        writer = LogWriter(directory, attempt)
        writer.write("stdout", b"%d\n" % attempt)
        writer.close()
    ended = {"name": "c", "lastState": {"terminated": {"exitCode": 1}}}
    runs, waits = {**ended, "state": {"running": {}}}, {**ended, "state": {"waiting": {}}}
    assert output(directory, back=logoptions.attempts_back(runs, True)) == b"0\n"
    assert output(directory, back=logoptions.attempts_back(waits, True)) == b"1\n"
    assert output(directory, back=logoptions.attempts_back(runs, False)) == b"1\n"
    with pytest.raises(BadInput, match="previous terminated container 'c' not found"):
        logoptions.attempts_back({"name": "c", "state": {"running": {}}, "lastState": {}}, True)
