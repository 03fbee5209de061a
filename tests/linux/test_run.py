"""`rawpod run` and its kin as a user meets them: the program itself, its output and its exit status."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel import credentials
from runtime.pod import sandbox
from runtime.settings import Settings

Rawpod = Callable[..., "subprocess.CompletedProcess[str]"]

_MAIN = "from runtime.cli.main import main; main()"


def arguments(settings: Settings, *words: str) -> list[str]:
    given = settings.to_json()
    options = [f"--{name}={given[name]}" for name in ("root", "state", "cgroup", "bridge", "subnet", "socket")]
    return [sys.executable, "-c", _MAIN, *options, "--missing-controllers=warn", *words]


@pytest.fixture
def rawpod(settings: Settings) -> Iterator[Rawpod]:
    """Runs the program. Monitors left behind become our children, so that they can be waited for."""
    credentials.set_child_subreaper()

    def run(*words: str, check: int | None = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            arguments(settings, *words), input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        if check is not None:
            assert done.returncode == check, done
        return done

    try:
        yield run
        if settings.pods.exists():
            for uid in os.listdir(settings.pods):
                sandbox.destroy(settings, uid)
        with pytest.raises(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        sandbox.tidy(settings)
    finally:
        # Or every later test's orphans would stay here as zombies.
        credentials.set_child_subreaper(False)


def test_output_streams_and_exit_status_are_the_payloads(rawpod: Rawpod) -> None:
    done = rawpod("run", "--rm", "host", "sh", "-c", "echo out; echo err >&2; exit 7", check=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_a_payload_ended_by_a_signal_is_128_and_the_signal(settings: Settings, rawpod: Rawpod) -> None:
    command = arguments(settings, "run", "--rm", "--name", "web", "host", "sh", "-c", "echo up; exec sleep 1000000")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        rawpod("kill", "web")
        assert process.wait(60) == 137


def test_not_found_not_executable_no_image_and_bad_options(rawpod: Rawpod) -> None:
    assert "nonesuch" in rawpod("run", "--rm", "host", "nonesuch", check=127).stderr
    assert "/etc/passwd" in rawpod("run", "--rm", "host", "/etc/passwd", check=126).stderr
    assert "'absent'" in rawpod("run", "--rm", "--pull", "never", "absent", "true", check=125).stderr
    faults = rawpod("run", "--memory", "1x", "-e", "=x", "host", "true", check=2).stderr
    assert "--memory" in faults
    assert rawpod("ps", "-a").stdout.count("\n") == 1


def test_standard_input_is_passed_on_when_asked_for(rawpod: Rawpod) -> None:
    text = "line\n" * 50_000
    assert rawpod("run", "--rm", "-i", "host", "cat", stdin=text).stdout == text
    assert rawpod("run", "--rm", "host", "cat", stdin=text).stdout == ""


def test_options_reach_the_payload(rawpod: Rawpod, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("shared\n")
    options = ("-e", "COLOUR=$blue", "-w", "/tmp", "-u", "1000:1001", "-v", f"{tmp_path}:/data:ro", "--hostname", "box")
    script = "echo $COLOUR; pwd; id -u; id -g; hostname; cat /data/file; touch /data/new 2>/dev/null || echo read-only"
    done = rawpod("run", "--rm", "--network", "none", *options, "host", "sh", "-c", script)
    assert done.stdout.split() == ["$blue", "/tmp", "1000", "1001", "box", "shared", "read-only"]


def test_an_inherited_descriptor_is_not_handed_on(rawpod: Rawpod, settings: Settings, tmp_path: Path) -> None:
    """CVE-2024-21626: exactly 0, 1, 2, and standard input is no file of the host. Fails when fds are handed on."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with victim.open() as file, (tmp_path / "out").open("w+") as out:
        command = arguments(
            settings, "run", "--rm", "-i", "host", "sh", "-c", "ls -l /proc/$$/fd; echo x > /proc/self/fd/0"
        )
        done = subprocess.run(command, stdin=file, stdout=out, stderr=out, timeout=60, check=False)
        out.seek(0)
        shown = out.read()
    assert victim.read_text() == "precious"
    assert [line.split()[8] for line in shown.splitlines() if "->" in line] == ["0", "1", "2"], shown
    assert str(tmp_path) not in shown
    assert done.returncode == 0


def test_signals_are_passed_on(settings: Settings, rawpod: Rawpod) -> None:
    script = "import signal, sys; signal.signal(15, lambda *_: sys.exit(42)); print('up', flush=True); signal.pause()"
    command = arguments(settings, "run", "--rm", "host", "/usr/bin/python3", "-c", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 42


def test_the_third_interrupt_kills_a_payload_that_ignores_it(settings: Settings, rawpod: Rawpod) -> None:
    command = arguments(settings, "run", "--rm", "host", "sh", "-c", "trap '' INT; echo up; exec sleep 1000000")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        for _ in range(1000):
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(0.05) == 137
                break
            except subprocess.TimeoutExpired:
                continue


def in_terminal(
    command: list[str], *, say: str = "", until: str = "", size: tuple[int, int] | None = None
) -> tuple[str, int]:
    """Run a command on a terminal of ours and answer once to `until`: what it showed, and its status."""
    pid, terminal = pty.fork()
    if pid == 0:
        if size:
            termios.tcsetwinsize(0, size)
        os.execv(command[0], command)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 1)
        if ready:
            try:
                data = os.read(terminal, 4096)
            except OSError:
                break
            shown += data
            if until and until.encode() in shown:
                os.write(terminal, say.encode())
                until = ""
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(status)


def test_a_terminal_of_its_own(settings: Settings, rawpod: Rawpod) -> None:
    command = arguments(settings, "run", "--rm", "-i", "-t", "host", "sh", "-c", "tty; stty size; read x; echo got $x")
    shown, status = in_terminal(command, say="hello\r", until="\n")
    assert status == 0
    assert "/dev/pts/0" in shown or "/dev/console" in shown
    assert "got hello" in shown


def test_the_callers_terminal_is_out_of_reach(settings: Settings, rawpod: Rawpod) -> None:
    """CVE-2016-10124 (TIOCSTI): no descriptor and no controlling terminal is the caller's, with and without -t.

    Fails when attempts hand on 0, 1, 2, and when init makes no session of its own.
    """
    script = (
        "import os\n"
        "try: os.open('/dev/tty', os.O_RDWR); print('a tty')\n"
        "except OSError: print('no tty')\n"
        "print('ttys', sum(os.isatty(fd) for fd in range(3)))"
    )
    words = ("host", "/usr/bin/python3", "-c", script)
    shown, status = in_terminal(arguments(settings, "run", "--rm", "-i", *words))
    assert status == 0
    assert "no tty" in shown
    assert "ttys 0" in shown


def test_detached_pods_are_listed_read_entered_and_ended(rawpod: Rawpod, settings: Settings) -> None:
    uid = rawpod(
        "run", "-d", "--name", "web", "host", "sh", "-c", "echo one; echo two; exec sleep 1000000"
    ).stdout.strip()
    [listed] = json.loads(rawpod("ps", "-o", "json").stdout)
    assert listed["rawpod"]["metadata"]["uid"] == uid
    assert "web" in rawpod("ps").stdout
    assert rawpod("logs", "web").stdout == "one\ntwo\n"
    assert rawpod("logs", "--tail", "1", uid[:8]).stdout == "two\n"
    some = rawpod("logs", "--prefix", "--since", "1h", "--limit-bytes", "6", "web").stdout
    assert some == "[pod/web/web] one\n[pod/web/web] tw"
    assert rawpod("logs", "--since-time", "2100-01-01T00:00:00Z", "web").stdout == ""
    assert "not found" in rawpod("logs", "--previous", "web", check=2).stderr
    assert rawpod("exec", "web", "sh", "-c", "echo in $HOSTNAME; exit 5", check=5).stdout == "in web\n"
    assert rawpod("exec", "-i", "web", "cat", stdin="text").stdout == "text"
    assert "nonesuch" in rawpod("exec", "web", "nonesuch", check=127).stderr
    assert json.loads(rawpod("inspect", "web").stdout)[0]["pod"]["metadata"]["name"] == "web"
    [usage] = json.loads(rawpod("stats", "-o", "json").stdout)
    assert usage["stats"]["cpu"]["usage_us"] > 0
    assert "exists" in rawpod("run", "-d", "--name", "web", "host", "true", check=125).stderr
    assert "running" in rawpod("rm", "web", check=125).stderr
    rawpod("kill", "-s", "SIGKILL", "web")
    with subprocess.Popen(arguments(settings, "logs", "-f", "web"), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.communicate(timeout=60)[0] == "one\ntwo\n"
    assert rawpod("ps").stdout.count("\n") == 1
    assert "ended: Error (137)" in rawpod("ps", "-a").stdout
    assert rawpod("stop", "web").stdout == "web\n"
    rawpod("rm", "web")
    assert rawpod("ps", "-a").stdout.count("\n") == 1
    assert "no pod 'web'" in rawpod("logs", "web", check=125).stderr


def test_a_detached_pod_that_cannot_start_is_an_error_and_leaves_nothing(rawpod: Rawpod) -> None:
    assert "nonesuch" in rawpod("run", "-d", "host", "nonesuch", check=127).stderr
    assert "absent" in rawpod("run", "-d", "absent", "true", check=125).stderr
    assert rawpod("ps", "-a").stdout.count("\n") == 1


def test_a_detached_pod_with_rm_removes_itself(rawpod: Rawpod, settings: Settings) -> None:
    rawpod("run", "-d", "--rm", "host", "true")
    with pytest.raises(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    assert os.listdir(settings.pods) == []
    assert os.listdir(settings.logs / "pods") == []


def test_stop_waits_as_long_as_told(rawpod: Rawpod) -> None:
    rawpod("run", "-d", "--name", "web", "host", "sh", "-c", "exec sleep 1000000")
    begin = time.monotonic()
    rawpod("stop", "-t", "0.5", "web")
    # Well below the default of 10 s.
    assert 0.5 <= time.monotonic() - begin < 8
    rawpod("rm", "web")


def test_rm_with_force_ends_what_runs(rawpod: Rawpod) -> None:
    rawpod("run", "-d", "--name", "web", "host", "sleep", "1000000")
    rawpod("rm", "-f", "web")
    assert rawpod("ps", "-a").stdout.count("\n") == 1


def test_a_published_port_is_the_hosts_too(rawpod: Rawpod) -> None:
    script = (
        "import socket; s = socket.create_server(('0.0.0.0', 80)); print('up', flush=True)\n"
        "while True: c, _ = s.accept(); c.sendall(b'hello'); c.close()"
    )
    rawpod("run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "host", "/usr/bin/python3", "-c", script)
    while not rawpod("logs", "web").stdout:
        pass
    with socket.create_connection(("127.0.0.1", 8080), timeout=20) as connection:
        assert connection.recv(10) == b"hello"
    rawpod("rm", "-f", "web")


def test_a_port_of_the_pods_own_loopback_is_forwarded_until_the_pod_ends(rawpod: Rawpod, settings: Settings) -> None:
    """Fails where the socket is not opened in the pod's network namespace: nothing listens at the host's port."""
    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 80)); print('up', flush=True)\n"
        "while True: c, _ = s.accept(); c.sendall(b'hello'); c.close()"
    )
    rawpod("run", "-d", "--name", "web", "host", "/usr/bin/python3", "-c", script)
    with subprocess.Popen(arguments(settings, "logs", "-f", "web"), stdout=subprocess.PIPE, text=True) as log:
        assert log.stdout is not None and log.stdout.readline() == "up\n"
        log.kill()
    command = arguments(settings, "port-forward", "--address=127.0.0.1", "pod/web", ":80")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as forward:
        assert forward.stdout is not None
        told = forward.stdout.readline()
        assert told.startswith("Forwarding from 127.0.0.1:") and told.endswith(" -> 80\n")
        port = int(told.split()[2].rpartition(":")[2])
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                assert connection.recv(10) == b"hello"
        rawpod("rm", "-f", "web")
        assert "has ended" in forward.communicate(timeout=60)[1]
    assert forward.returncode == 1
    assert "no pod" in rawpod("port-forward", "web", "80", check=125).stderr


def test_top_tells_what_pods_use_now(rawpod: Rawpod) -> None:
    rawpod("run", "-d", "--name", "busy", "host", "sh", "-c", "while :; do :; done")
    rawpod("run", "-d", "--name", "idle", "host", "sleep", "1000000")
    [busy] = json.loads(rawpod("top", "busy", "--interval", "0.3", "-o", "json").stdout)
    assert (busy["pod"], busy["container"]) == ("busy", "busy") and busy["cpu"] > 10
    lines = rawpod("top", "pods", "--sort-by", "cpu", "--interval", "0.2").stdout.splitlines()
    assert [row.split()[0] for row in lines] == ["POD", "busy", "idle"]
    assert "CPU(cores)" in lines[0] and lines[1].split()[1].endswith("m")
    rawpod("rm", "-f", "busy", "idle")
    assert rawpod("top", "pods", "--interval", "0.05").stdout == ""


def test_attach_shows_and_says_to_a_container_what_is_written_from_then_on(rawpod: Rawpod, settings: Settings) -> None:
    rawpod("run", "-d", "-i", "--name", "talk", "host", "sh", "-c", "echo before; while read x; do echo got $x; done")
    assert "no terminal" in rawpod("attach", "-t", "talk", check=2).stderr
    command = arguments(settings, "attach", "-i", "talk")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attached:
        assert attached.stdin is not None and attached.stdout is not None
        attached.stdin.write("one\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == "got one\n"
        attached.send_signal(signal.SIGINT)
        assert attached.wait(timeout=60) == 130
    assert rawpod("ps").stdout.count("running") == 1  # an interrupt is the client's alone
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attached:
        assert attached.stdin is not None and attached.stdout is not None
        attached.stdin.write("two\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == "got two\n"
        rawpod("kill", "talk")
        assert attached.wait(timeout=60) == 0
    assert rawpod("logs", "talk").stdout == "before\ngot one\ngot two\n"
    assert "no running monitor" in rawpod("attach", "talk", check=125).stderr
    rawpod("rm", "talk")


def test_attach_gives_the_containers_terminal_our_size_and_keys(rawpod: Rawpod, settings: Settings) -> None:
    script = "trap 'stty size' WINCH; echo up; while :; do read x && echo got $x && exit; done"
    rawpod("run", "-d", "-i", "-t", "--name", "talk", "host", "sh", "-c", script)
    with subprocess.Popen(arguments(settings, "logs", "-f", "talk"), stdout=subprocess.PIPE, text=True) as log:
        assert log.stdout is not None and log.stdout.readline().startswith("up")
        log.kill()
    command = arguments(settings, "attach", "-i", "-t", "talk")
    shown, status = in_terminal(command, say="hello\r", until="77", size=(33, 77))
    assert status == 0
    assert "33 77" in shown and "got hello" in shown
    rawpod("rm", "-f", "talk")
