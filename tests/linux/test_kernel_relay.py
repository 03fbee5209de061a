"""The program that stands between the interpreter and a payload (kernel/relay.py)."""

import fcntl
import os
import struct

import pytest

from kernel import credentials, relay
from kernel.credentials import CapabilitySets
from kernel.errors import HostError
from kernel.pidfd import wait_pidfd
from kernel.process import CLONE_NEWPID, clone3

_F_GET_SEALS = 1034


def _through(relay_fd, *args, environment=None):
    """Exit status, what arrived on the descriptor, and what was printed."""
    reading, writing = os.pipe()
    environment = {"PIPE": f"pipe:[{os.fstat(reading).st_ino}]", **(environment or {})}
    output, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(out, 1)
        os.set_inheritable(writing, True)
        os.execve(relay_fd, [str(writing), *args], environment)
    for fd in (writing, out):
        os.close(fd)
    with os.fdopen(reading, "rb") as news, os.fdopen(output, "rb") as printed:
        return news.read(), printed.read().decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def relay_fd():
    fd = relay.make()
    yield fd
    os.close(fd)


def test_it_executes_with_arguments_and_environment(relay_fd, probe):
    script = 'echo "$0 $1 $A"; readlink /proc/self/fd/* | grep -cF "$PIPE"'
    news, printed, status = _through(relay_fd, str(probe), "sh", "-c", script, "zero", "one", environment={"A": "a"})
    # The relay's descriptor did not come through: grep found none.
    assert (news, printed.split(), status) == (b"", ["zero", "one", "a", "0"], 1)


@pytest.mark.parametrize(("path", "errno", "status"), [("missing", 2, 127), (".", 13, 126)])
def test_it_tells_the_errno_of_what_cannot_be_executed(relay_fd, tmp_path, path, errno, status):
    news, _, exited = _through(relay_fd, str(tmp_path / path), path)
    assert (relay.errno_in(news), exited) == (errno, status)


def test_an_executable_that_names_its_own_executor_gets_the_relay(relay_fd, tmp_path):
    # "#!/proc/self/exe" runs the relay again, with the path for a descriptor: it ends in an error and opens nothing.
    script = tmp_path / "script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    _, printed, status = _through(relay_fd, str(script), "script")
    assert (printed, status) == ("", 126)


def test_it_cannot_be_changed(relay_fd):
    assert fcntl.fcntl(relay_fd, _F_GET_SEALS) == 0xF
    with pytest.raises(PermissionError):
        os.pwrite(relay_fd, b"x", 0)


def test_where_memory_files_may_not_be_executed_it_says_so():
    # The parameter is the pid namespace's: the host's stays as it is.
    child = clone3(CLONE_NEWPID)
    if child.pid == 0:
        status = 1
        try:
            with open("/proc/sys/vm/memfd_noexec", "w") as file:
                file.write("2")
            with pytest.raises(HostError, match=r"vm\.memfd_noexec is 2"):
                relay.make()
            status = 0
        except FileNotFoundError:
            status = 0  # before Linux 6.3 there is no such parameter
        finally:
            os._exit(status)
    assert wait_pidfd(child.pidfd).shell == 0
    os.close(child.pidfd)


def _capabilities(text):
    return {line.split()[0][3:-1]: int(line.split()[1], 16) for line in text.splitlines()}


@pytest.mark.parametrize("inheritable", [0, 2])
def test_it_sets_capabilities_before_it_executes(probe, inheritable):
    """They are ambient to outlast the execve of the relay, and are not any more when the program is executed."""
    sets = [(2, 2, 0), (2, 2, 2)][: 1 + inheritable // 2]
    fd = relay.make(sets)
    reading, writing = os.pipe()
    output, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(out, 1)
        os.set_inheritable(writing, True)
        credentials.set_keep_capabilities(True)
        os.setresuid(1000, 1000, 1000)
        credentials.capset(CapabilitySets(2, 2, 2))
        credentials.raise_ambient(2)
        os.execve(fd, [str(writing), str(probe), "grep", "Cap[IPEA]", "/proc/self/status"], {})
    for end in (fd, writing, out):
        os.close(end)
    with os.fdopen(reading, "rb") as news, os.fdopen(output) as printed:
        assert (news.read(), os.waitpid(pid, 0)[1]) == (b"", 0)
        assert _capabilities(printed.read()) == {"Inh": inheritable, "Prm": 0, "Eff": 0, "Amb": 0}


def test_it_executes_nothing_with_capabilities_that_it_could_not_set(probe):
    fd = relay.make([(0, 1 << 1, 0), (1 << 1, 0, 0)])  # the second is impossible: effective, and not permitted
    news, printed, status = _through(fd, str(probe), "echo", "executed")
    os.close(fd)
    assert (relay.errno_in(news), printed, status) == (1, "", 126)


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_added_for_aarch64_reads_its_own_data(count):
    """It is not executed here: where the code says that the data are, and where it goes when capset(2) fails."""
    sets = [(1 << 33 | 5, 5, 3), (7, 7, 7)][:count]
    code = relay.image("aarch64", sets)[120:]
    plain = relay.image("aarch64")[120:]
    words = [word for (word,) in struct.iter_unpack("<I", code[: len(plain) + 20 * count])]
    header = len(plain) + 20 * count
    failure = words.index(0xF81F0FE0) * 4  # str x0, [sp, #-16]!
    assert code[header : header + 8] == struct.pack("<II", 0x20080522, 0)

    def target(at, word, bits):
        return at * 4 + (((word >> 5 & ((1 << bits) - 1)) << 2) | (word >> 29 & 3 if bits == 19 else 0))

    assert target(18, words[18], 14) == failure
    for number, (effective, permitted, inheritable) in enumerate(sets):
        first = 19 + 5 * number
        assert target(first, words[first], 19) == header
        data = target(first + 1, words[first + 1], 19)
        found = struct.unpack_from("<6I", code, data)
        assert found[:3] == tuple(bits & 0xFFFFFFFF for bits in (effective, permitted, inheritable))
        assert found[3:] == tuple(bits >> 32 for bits in (effective, permitted, inheritable))
        assert target(first + 4, words[first + 4], 14) == failure
