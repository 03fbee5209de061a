"""Holes around what payloads print: exec, logs, disks (the numbers are those of docs/security-corpus.md).

Each test says by which change it was seen to fail.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kernel.errors import CommandNotFound, RawpodError
from runtime import spec, state
from runtime.exec import exec_in
from runtime.pod import directory, logread, logs, sandbox
from runtime.pod.loop import Loop
from runtime.pod.streams import OutputPump
from tests.linux.test_corpus_process import _in_child as in_child
from tests.linux.test_run import arguments, rawpod
from tests.pods import RunningPod, container, pods
from tests.rootfs_lab import tree

__all__ = ["pods", "rawpod"]

MEBIBYTE = 1024 * 1024
FLOOD = 256 * MEBIBYTE
SLACK = 16 * MEBIBYTE
"""In KiB-sized steps the same program takes a few MiB more or less; what grows with the output takes FLOOD."""


def peak(pid):
    """The most memory that a process has had resident, in bytes (proc_pid_status(5), VmHWM)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def written_by(pid):
    """How many bytes a process has written (proc_pid_io(5), wchar)."""
    lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(lines["wchar"])


def take(stream, wanted):
    """Read so many bytes, or to the end."""
    left = wanted
    while left > 0 and (data := stream.read(min(left, 65536))):
        left -= len(data)
    return wanted - left


@pytest.fixture
def web(rawpod):
    """A pod for commands to be run in."""
    rawpod("run", "-d", "--name", "web", "--network", "none", "host", "sleep", "1000000")
    return "web"


@pytest.mark.parametrize("terminal", [False, True])
def test_row_38_exec_keeps_nothing_of_endless_output(settings, web, terminal):
    """CVE-2022-31030: what a command prints is passed on, never gathered.

    Seen to fail with the pump that goes on reading while its reader does not: `loop.remove()` left out of
    OutputPump._read_once().
    """
    options = ["-t"] if terminal else []
    words = arguments(settings, "exec", *options, web, "sh", "-c", "echo up; exec cat /dev/zero")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as command:
        try:
            take(command.stdout, MEBIBYTE)
            before = peak(command.pid)
            # Nobody reads: the payload has to wait.
            payload = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()[0]
            written = -1
            while written != (written := written_by(payload)):
                assert peak(command.pid) - before < SLACK
                time.sleep(0.1)
            assert take(command.stdout, FLOOD) == FLOOD
            assert peak(command.pid) - before < SLACK
        finally:
            command.send_signal(signal.SIGTERM)
            take(command.stdout, 1 << 40)
        assert command.wait(60) == 143


@pytest.mark.parametrize("reader", ["slow", "gone"])
def test_row_38_a_child_that_writes_on_without_end_does_not_keep_exec(settings, web, reader):
    """CVE-2022-31030: the command has ended, what it started writes on, and its reader does not keep up or has gone.

    That exec ends was a matter of luck, see the next test.
    """
    words = arguments(settings, "exec", web, "sh", "-c", "cat /dev/zero & exit 7")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as command:
        if reader == "gone":
            command.stdout.close()
        elif take(command.stdout, FLOOD) == FLOOD:
            command.kill()
            pytest.fail("exec goes on without end")
        try:
            assert command.wait(60) == 7
        except subprocess.TimeoutExpired:
            command.kill()
            raise


def test_row_38_what_is_taken_after_the_end_has_a_bound():
    """CVE-2022-31030: who writes on and is faster than we read, here the device that always has more.

    Seen to fail without the bound in OutputPump.drain().
    """

    class Deaf(Loop):
        def add(self, fd, callback, events=0):
            """epoll does not take this file."""

    total = 0

    def consume(data):
        nonlocal total
        total += len(data)
        assert total < FLOOD

    loop = Deaf()
    pump = OutputPump(loop, os.open("/dev/zero", os.O_RDONLY), consume, None, lambda: None)
    pump.drain()
    pump.close()
    loop.close()
    assert total >= MEBIBYTE


def test_row_38_an_exec_that_fails_leaves_no_terminal_and_no_process(box):
    """CVE-2022-23471: a command that could not be run left its terminal, and who watched it, for ever.

    Seen to fail without the close of the console in exec._started(): found by this test.
    """
    container = box.create(box.config("busybox", "sleep", "1000"))
    container.start()
    try:
        process = spec.Process("/", args=["no-such-program"], env=["PATH=/bin"], terminal=True)
        record = state.load(box.bundle)

        def fail_often():
            before = sorted(os.listdir("/proc/self/fd"))
            for _ in range(20):
                with pytest.raises(CommandNotFound):
                    exec_in(record, container.cgroup, process, (0, 1, 2), linux=None)
            assert sorted(os.listdir("/proc/self/fd")) == before
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG | 0x40000000)  # __WALL

        in_child(fail_often)
        assert container.cgroup.processes() == [container.pid]
    finally:
        container.kill()
        container.wait()
        container.delete()


def test_row_38_a_monitor_loses_nothing_to_terminals_that_failed(pods):
    """CVE-2022-23471 for containers that are started over and over, with a terminal, and cannot be.

    Not tried with the mitigation taken out: Attempt closes the console of a container that did not start.
    """
    pod = pods.start(container("main", "/no/such/program", tty=True), restartPolicy="Always")
    counts = []
    for attempts in (2, 3, 4):
        status = pod.wait(lambda now, n=attempts: now["containerStatuses"][0]["restartCount"] >= n)
        counts.append(len(os.listdir(f"/proc/{status['rawpod']['monitor']['pid']}/fd")))
    assert len(set(counts)) == 1, counts


def test_row_38_and_40_a_flood_without_line_ends_costs_neither_memory_nor_disk(pods):
    """CVE-2022-31030, CVE-2025-0426 for logs: lines are cut, files are rotated, old ones removed.

    Seen to fail without LINE_LIMIT in LogWriter.write() (memory), and without _rotate() in _append() (disk).
    """
    script = f"head -c {MEBIBYTE} /dev/zero; echo first; head -c {FLOOD} /dev/zero; echo last; exec sleep 1000000"
    pod = pods.start(container("main", "sh", "-c", script))
    monitor = pod.running()["rawpod"]["monitor"]["pid"]
    before = None
    for entry in pod.follow("main"):
        if before is None:
            before = peak(monitor)
        if entry.text.endswith(b"last"):
            break
    assert peak(monitor) - before < SLACK
    files = logread.files(pod.log_path("main"))
    assert len(files) == logs.MAX_FILES
    assert sum(path.stat().st_size for path in files) <= logs.MAX_FILES * (logs.MAX_SIZE + MEBIBYTE)


def test_row_40_a_container_that_ends_over_and_over_leaves_two_attempts(pods):
    """CVE-2025-0426: what an attempt leaves, layer and log, goes with a later one.

    Seen to fail without _remove_attempts_before() and without Blueprint.discard().
    """
    pod = pods.start(container("main", "sh", "-c", "echo x; echo y > /file; exit 1"), restartPolicy="Always")
    pod.wait(lambda now: now["containerStatuses"][0]["restartCount"] >= 3)
    assert len(logread.files(pod.log_path("main"))) <= logs.KEPT_ATTEMPTS
    layers = pods.settings.overlay / pod.uid / "main"
    assert len(list(layers.iterdir())) <= 2
    assert sum(path.stat().st_size for path in pod.directory.rglob("*") if path.is_file()) < MEBIBYTE


@pytest.mark.parametrize("planted", ["pod", "container", "file", "rotated"])
def test_row_39_a_link_in_place_of_a_log_is_refused(pods, planted, tmp_path):
    """CVE-2026-53489: whatever is in the way of a log, nothing is written where it leads.

    Seen to fail without O_NOFOLLOW in LogDirectory.open() ("pod", "container") and in LogWriter._open() ("file"), and
    with the pod's directory listed by its path in logs.remove() ("pod").
    """
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched\n")
    before = tree(outside)
    uid = "0f1ce6a0-0000-4000-8000-" + os.urandom(6).hex()
    path = logs.LogDirectory.of(pods.settings.logs, "default", "web", uid, "main").path
    link = {"pod": path.parent, "container": path, "file": path / "0.log", "rotated": path / "0.log.1"}[planted]
    link.parent.mkdir(parents=True)
    os.symlink(outside / "victim" if "." in link.name[-6:] else outside, link)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": uid},
        "spec": {"containers": [container("main", "echo", "printed")], "restartPolicy": "Never"},
    }
    directory.create(pods.settings, uid, json.dumps(pod).encode())
    assert "pid" in pods.ask({"spawn": {"uid": uid}})
    running = RunningPod(pods.settings, uid, "web")
    pods.pods.append(running)
    status = running.wait(lambda now: now["phase"] != "Pending" or "message" in str(now["containerStatuses"]))
    if planted != "rotated":  # that one is replaced when its time comes
        assert "log" in str(status["containerStatuses"]), status
        running.stop()
    else:
        running.ended()
    sandbox.destroy(pods.settings, uid)
    assert tree(outside) == before


def test_row_39_a_link_in_place_of_a_log_is_not_read(tmp_path):
    """CVE-2026-53489, the other way: `logs` of a link showed the host's files.

    Seen to fail without O_NOFOLLOW in logread's cursor: the secret is read.
    """
    (tmp_path / "secret").write_text("2026-01-02T03:04:05.678901234Z stdout F secret\n")
    (tmp_path / "logs").mkdir()
    os.symlink(tmp_path / "secret", tmp_path / "logs/0.log")
    with pytest.raises((RawpodError, OSError)):
        list(logread.read(tmp_path / "logs"))


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "a" * 256, "a\0b", ""])
def test_row_39_a_name_does_not_lead_out_of_the_logs(tmp_path, name):
    """CVE-2025-0750. Seen to fail without the check of names in LogDirectory.open()."""
    for places in ((name, "main"), ("default_web_1", name)):
        with pytest.raises(RawpodError, match="is not a file name"):
            logs.LogDirectory(tmp_path / "logs", *places).open()
    assert not any(tmp_path.iterdir())
