"""The programs that call an OCI runtime, with a runtime of the test's choice, and what they leave in the kernel."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import tarfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cgroups.hierarchy import find

CHECKOUT = Path(__file__).resolve().parent.parent
RAWPOD_OCI = CHECKOUT / ".venv/bin/rawpod-oci"

IMAGE = "localhost/box:latest"
SECONDS = 90
"""For one command. An emulated machine takes one to two."""

SIZE = 'tty; while [ -z "$(stty size 2>/dev/null)" ]; do sleep 0.05; done; stty size'
"""Prints the terminal's name and its size. The callers set the size when the process runs already."""

Done = subprocess.CompletedProcess[str]


def run(arguments: Sequence[str | os.PathLike[str]], *, check: int | None = 0, stdin: str = "") -> Done:
    """Run a command to its end; `check` is the exit status it must have, None for any."""
    done = subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=SECONDS)
    assert check is None or done.returncode == check, done
    return done


class Podman:
    """podman with storage of its own and one image, `IMAGE`: busybox in a root that holds little else."""

    def __init__(self, runtime: str, home: Path, probe: Path) -> None:
        self.home = home
        configuration = home / "containers.conf"
        configuration.write_text(
            '[containers]\nnetns = "none"\nlog_driver = "k8s-file"\n[engine]\nevents_logger = "file"\n'
        )
        self.storage = [
            *("env", f"CONTAINERS_CONF={configuration}", "podman"),
            *("--root", str(home / "storage"), "--runroot", str(home / "run"), "--tmpdir", str(home / "tmp")),
            # Or podman would mount the storage on itself, and unmount it whenever it is the last.
            *("--storage-driver", "overlay", "--storage-opt", "overlay.skip_mount_home=true"),
        ]
        self.using(runtime)
        tar = home / "box.tar"
        make_image(tar, probe)
        self("import", str(tar), IMAGE)

    def using(self, runtime: str) -> Podman:
        """The same, from now on with this runtime."""
        self.runtime = runtime
        self.words = [*self.storage, "--runtime", runtime]
        return self

    def __call__(self, *words: str, check: int | None = 0, stdin: str = "") -> Done:
        """`podman WORDS…`."""
        return run([*self.words, *words], check=check, stdin=stdin)

    def once(self, *words: str, check: int = 0) -> str:
        """What `podman run --rm WORDS…` printed, without the last newline."""
        return self("run", "--rm", *words, check=check).stdout.rstrip("\r\n")

    def box(self, script: str, *options: str, check: int = 0) -> str:
        """What a shell script printed that ran in a container of the image."""
        return self.once(*options, IMAGE, "sh", "-c", script, check=check)

    def detached(self, name: str, *words: str) -> str:
        """Start a container in the background; its id."""
        return self("run", "-d", "--name", name, *words).stdout.strip()

    def inspect(self, name: str, field: str) -> str:
        """A field of `podman inspect`, as its template language names it."""
        return self("inspect", "--format", "{{" + field + "}}", name).stdout.strip()

    def cgroup(self, name: str) -> Path:
        """The cgroup in which a container's limits are."""
        return Path(find().at(self.inspect(name, ".State.CgroupPath")))

    def clear(self) -> None:
        """Remove every pod and container."""
        self("pod", "rm", "-af", "-t", "0")
        self("rm", "-af", "-t", "0")

    def traces(self) -> list[str]:
        """What containers of this storage hold in the kernel: cgroups, mounts, processes."""
        return [*cgroups("libpod-"), *mounts(self.home / "storage"), *processes(str(self.home))]


def make_image(tar: Path, probe: Path) -> None:
    """A root tar with busybox under the names of all its applets, and the accounts root and daemon."""
    applets = run([probe, "--list"]).stdout.split()
    with tarfile.open(tar, "w") as archive:
        for directory in ("bin", "etc", "proc", "sys", "dev", "tmp", "run", "root", "data"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            archive.addfile(entry)
        archive.add(probe, "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(entry)
        accounts = tar.with_name("accounts")
        for name, text in (
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n"),
            ("etc/group", "root:x:0:\ndaemon:x:1:\nstaff:x:50:daemon\n"),
        ):
            accounts.write_text(text)
            archive.add(accounts, name)


def cgroups(prefix: str) -> list[str]:
    """The cgroups whose name begins with `prefix`, wherever they are."""
    return [
        f"cgroup {directory}/{name}"
        for directory, names, _ in os.walk(find().mount)
        for name in names
        if name.startswith(prefix)
    ]


def mounts(below: Path) -> list[str]:
    """Mounts of containers below a directory: their roots and their shared memory."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [f"mount {p}" for p in points if p.startswith(f"{below}/") and p.endswith(("/merged", "/shm", "/rootfs"))]


def processes(word: str) -> list[str]:
    """Processes that have `word` in their command line, such as a monitor of a container."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if word in command and int(pid) != os.getpid():
            found.append(f"process {pid}: {command}")
    return found


def settled(traces: Callable[[], list[str]]) -> list[str]:
    """What is left in the end: the last of a container is removed after its caller was answered."""
    deadline = time.monotonic() + 20
    pause = 0.01
    while (left := traces()) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 2, 0.5)
    return left


class Terminal:
    """A command on a terminal of its own, and what was printed there."""

    def __init__(self, arguments: Sequence[str], rows: int, columns: int) -> None:
        self.seen = ""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)

    def type(self, text: str) -> None:
        """Send keys."""
        os.write(self.master, text.encode())

    def until(self, text: str | None) -> str:
        """Wait until `text` was printed, None: until nobody has the terminal any more. What was printed by then."""
        deadline = time.monotonic() + SECONDS
        while text is None or text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if not select.select([self.master], [], [], 1)[0]:
                continue
            try:
                self.seen += os.read(self.master, 4096).decode(errors="replace")
            except OSError:  # EIO: the other end is closed (pty(7))
                assert text is None, self.seen
                break
        return self.seen

    def end(self) -> tuple[int, str]:
        """Wait for the end: the exit status, and all that was printed."""
        printed = self.until(None)
        return self.process.wait(SECONDS), printed


@contextmanager
def terminal(arguments: Sequence[str], *, rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
    """A command on a terminal, killed at the end if it still runs."""
    made = Terminal(arguments, rows, columns)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        os.close(made.master)
