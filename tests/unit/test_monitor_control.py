"""The control socket, the event loop and the streams, against small fakes."""

import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from kernel.errors import NotFound, RawpodError
from runtime.pod import control
from runtime.pod.attaching import Attached, Tap
from runtime.pod.loop import Loop
from runtime.pod.streams import InputPump, OutputPump, Sink


class Pod:
    """A handler that does what it is told and nothing else."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.signals: list[tuple[str | None, int]] = []
        self.status: dict[str, Any] = {"phase": "Running"}
        self.payload_stdin = -1
        self.attached: Attached | None = None

    def stop_requested(self, grace: float | None, done: Callable[[], None]) -> None:
        assert grace == 3
        done()
        self.loop.stop()

    def signal_requested(self, container: str | None, signum: int) -> None:
        if container != "main":
            raise NotFound(f"no container {container!r}")
        self.signals.append((container, signum))

    def refresh_requested(self) -> None:
        raise RawpodError("nothing to refresh")

    def attach_requested(self, container: str | None, outputs: list[int], stdin: int) -> Callable[[], None]:
        if container != "main":
            raise NotFound(f"no container {container!r}")
        attached = Attached(self.loop, outputs, stdin, os.dup(self.payload_stdin) if stdin >= 0 else -1)
        self.attached = attached
        attached.write("stdout", b"out")
        attached.write("stderr", b"err")
        return attached.close

    def resize_requested(self, container: str | None, rows: int, columns: int) -> None:
        self.status = {"size": [rows, columns]}

    def current_status(self) -> dict[str, Any]:
        return self.status


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    loop = Loop()
    pod = Pod(loop)
    server = control.Server(loop, control.listen(tmp_path), pod)
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield pod
    if thread.is_alive():
        control.request(tmp_path, {"do": "stop", "grace": 3})
    thread.join()
    server.close()
    loop.close()


def test_the_socket_is_for_its_owner_alone(pod: Pod, tmp_path: Path) -> None:
    """CVE-2020-15257: a path socket of mode 0600. Fails when fchmod is taken out of control.listen under umask 0."""
    assert stat.S_IMODE((tmp_path / control.SOCKET).stat().st_mode) == 0o600


def test_signal_is_passed_on_and_errors_come_back(pod: Pod, tmp_path: Path) -> None:
    assert control.request(tmp_path, {"do": "signal", "container": "main", "signal": 15}) == {"done": True}
    assert pod.signals == [("main", 15)]
    with pytest.raises(RawpodError, match="no container 'other'"):
        control.request(tmp_path, {"do": "signal", "container": "other", "signal": 15})


@pytest.mark.parametrize("packet", [b"nonsense", b"[]", b"{}", b'{"do": "fly"}', b'{"do": "signal", "signal": "x"}'])
def test_a_malformed_request_is_answered_and_survived(pod: Pod, tmp_path: Path, packet: bytes) -> None:
    with control.connect(tmp_path) as connection:
        connection.send(packet)
        answer = control.receive(connection)
    assert answer is not None
    assert "error" in answer
    assert control.request(tmp_path, {"do": "signal", "container": "main", "signal": 1}) == {"done": True}


def test_a_watcher_is_told_at_once_and_sees_the_end(pod: Pod, tmp_path: Path) -> None:
    with control.connect(tmp_path) as connection:
        connection.send(json.dumps({"do": "watch"}).encode())
        assert control.receive(connection) == {"status": {"phase": "Running"}}


def test_no_monitor_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        control.connect(tmp_path)
    control.listen(tmp_path).close()
    with pytest.raises(NotFound):
        control.connect(tmp_path)


def test_a_directory_with_a_long_name_has_a_socket_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    with control.listen(deep), control.connect(deep):
        pass


def test_a_watcher_that_does_not_read_gets_the_newest_status_later(tmp_path: Path) -> None:
    loop = Loop()
    pod = Pod(loop)
    server = control.Server(loop, control.listen(tmp_path), pod)
    with control.connect(tmp_path) as connection:
        connection.send(b'{"do": "watch"}')
        pod.status = {"phase": "Running", "filler": "x" * 50_000, "number": 0}

        def publish(number: int = 1) -> None:
            pod.status = {**pod.status, "number": number}
            server.publish()
            loop.call_later(0, (lambda: publish(number + 1)) if number < 50 else loop.stop)

        loop.call_later(0.01, publish)
        loop.run()
        numbers = []

        def read() -> None:
            message = control.receive(connection)
            assert message is not None
            numbers.append(message["status"]["number"])
            if numbers[-1] == 50:
                loop.stop()

        loop.add(connection.fileno(), read)
        loop.run()
    assert numbers[-1] == 50
    assert len(numbers) < 50
    server.close()
    loop.close()


def test_timers_fire_in_order_and_cancelled_ones_do_not() -> None:
    loop = Loop()
    fired: list[str] = []
    loop.call_later(0.02, lambda: (fired.append("second"), loop.stop()))  # type: ignore[arg-type]
    loop.call_later(0.01, lambda: fired.append("first"))
    loop.call_later(0.005, lambda: fired.append("never")).cancel()
    loop.run()
    loop.close()
    assert fired == ["first", "second"]


def test_signals_arrive_as_calls_and_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    loop = Loop()
    seen: list[int] = []

    def on_signal(number: int) -> None:
        seen.append(number)
        loop.stop()

    loop.on_signals((signal.SIGUSR1,), on_signal)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run()
    loop.close()
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_output_waits_for_a_reader_that_is_slow_and_nothing_is_lost() -> None:
    loop = Loop()
    payload_reader, payload_writer = os.pipe()
    shown_reader, shown_writer = os.pipe()
    sink = Sink(loop, shown_writer)
    logged: list[bytes] = []
    OutputPump(loop, payload_reader, logged.append, sink, loop.stop)
    data = os.urandom(300_000)
    seen: list[bytes] = []

    def payload() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(payload_writer, view) :]
        os.close(payload_writer)

    def reader() -> None:
        while chunk := os.read(shown_reader, 1000):
            seen.append(chunk)

    threads = [threading.Thread(target=payload), threading.Thread(target=reader)]
    for thread in threads:
        thread.start()
    loop.run()
    sink.finish()
    os.close(shown_writer)
    for thread in threads:
        thread.join()
    os.close(shown_reader)
    loop.close()
    assert b"".join(logged) == b"".join(seen) == data


@pytest.mark.parametrize("kind", ["file", "pipe", "socket"])
def test_input_is_copied_to_its_end_from_anything(tmp_path: Path, kind: str) -> None:
    data = os.urandom(200_000)
    (tmp_path / "input").write_bytes(data)
    feeder = None
    if kind == "file":
        source = os.open(tmp_path / "input", os.O_RDONLY)
    elif kind == "pipe":
        source, feed = os.pipe()
        feeder = threading.Thread(target=_write_and_close, args=(os.fdopen(feed, "wb"), data))
    else:
        ours, theirs = socket.socketpair()
        source = theirs.detach()
        feeder = threading.Thread(target=_write_and_close, args=(ours.makefile("wb"), data))
        ours.close()
    if feeder:
        feeder.start()
    reader, writer = os.pipe()
    loop = Loop()
    InputPump(loop, source, writer)
    received: list[bytes] = []
    OutputPump(loop, reader, received.append, None, loop.stop)
    loop.run()
    loop.close()
    os.close(source)
    if feeder:
        feeder.join()
    assert b"".join(received) == data


def _write_and_close(file: IO[bytes], data: bytes) -> None:
    with file:
        file.write(data)


def attach(directory: Path, fds: list[int], **fields: Any) -> tuple[socket.socket, control.Message]:
    connection = control.connect(directory)
    request = {"do": "attach", "container": "main", "outputs": 2, "stdin": False, **fields}
    socket.send_fds(connection, [json.dumps(request).encode()], fds)
    for fd in fds:
        os.close(fd)
    answer = control.receive(connection)
    assert answer is not None
    return connection, answer


def test_attach_copies_both_ways_until_the_client_goes(pod: Pod, tmp_path: Path) -> None:
    payload, pod.payload_stdin = os.pipe2(os.O_CLOEXEC)
    (out, out_theirs), (err, err_theirs), (in_theirs, ours) = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
    connection, answer = attach(tmp_path, [out_theirs, err_theirs, in_theirs], stdin=True)
    assert answer == {"done": True}
    assert (os.read(out, 9), os.read(err, 9)) == (b"out", b"err")
    os.write(ours, b"in")
    assert os.read(payload, 9) == b"in"
    connection.close()
    assert (os.read(out, 9), os.read(err, 9)) == (b"", b"")
    for fd in (out, err, ours, payload, pod.payload_stdin):
        os.close(fd)


@pytest.mark.parametrize("fields", [{"container": "other"}, {"outputs": 3}, {"outputs": 1}, {"stdin": True}])
def test_an_attach_that_is_refused_leaves_no_descriptor(pod: Pod, tmp_path: Path, fields: dict[str, Any]) -> None:
    """Fails when _serve does not close what nobody has taken: the reads would block."""
    (out, out_theirs), (err, err_theirs) = (os.pipe2(os.O_CLOEXEC) for _ in range(2))
    connection, answer = attach(tmp_path, [out_theirs, err_theirs], **fields)
    assert "error" in answer
    assert (os.read(out, 1), os.read(err, 1)) == (b"", b"")
    connection.close()
    for fd in (out, err):
        os.close(fd)


def test_a_file_in_place_of_a_pipe_is_refused(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fds = [os.open(tmp_path / "file", os.O_WRONLY) for _ in range(2)]
    connection, answer = attach(tmp_path, fds)
    assert "pipe" in answer["error"]
    connection.close()


def test_a_reader_that_stalls_is_let_go_and_never_waited_for() -> None:
    loop = Loop()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    tap = Tap(loop, writer)
    for _ in range(40):
        tap.write(bytes(64 * 1024))
    assert not tap.open
    os.close(reader)
    loop.close()


def test_resize_reaches_the_handler(pod: Pod, tmp_path: Path) -> None:
    control.request(tmp_path, {"do": "resize", "container": "main", "rows": 24, "columns": 80})
    assert pod.status == {"size": [24, 80]}
