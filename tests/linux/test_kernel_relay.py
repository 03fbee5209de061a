"""The program that stands between the interpreter and a payload (kernel/relay.py)."""

import fcntl
import os

import pytest

from kernel import relay
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
