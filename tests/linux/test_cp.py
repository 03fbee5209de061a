"""`rawpod cp` as its user meets it: into and out of containers that run and that have ended."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cgroups.cgroup import Cgroup
from runtime.settings import Settings
from tests.linux.test_run import Rawpod, arguments, rawpod
from tests.pods import Pods, container, pods

__all__ = ["pods", "rawpod"]

pytestmark = pytest.mark.userland

SLEEP = "exec sleep 1000000"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory of the host with one of everything in it."""
    top = tmp_path / "here"
    (top / "tree/below").mkdir(parents=True)
    (top / "tree/below/binary").write_bytes(bytes(range(256)) * 300)
    (top / "tree/program").write_text("#!/bin/sh\n")
    (top / "tree/program").chmod(0o4755)
    os.link(top / "tree/program", top / "tree/below/same")
    (top / "tree/link").symlink_to("/etc/shadow")
    os.mkfifo(top / "tree/fifo", 0o640)
    os.mknod(top / "tree/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with open(top / "tree/holes", "wb") as file:
        file.truncate(1 << 34)
        file.seek(1 << 33)
        file.write(b"data")
    with contextlib.suppress(OSError):  # a tmpfs has had such attributes since Linux 6.6
        os.setxattr(top / "tree/below", "user.colour", b"blue")
    for path in sorted(top.rglob("*"), reverse=True):
        os.chown(path, 1000, 1001, follow_symlinks=False)
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    (top / "tree/program").chmod(0o4755)
    return top


def listing(top: Path, *, owners: bool) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        seen: tuple[object, ...] = (oct(status.st_mode), status.st_mtime_ns, status.st_rdev)
        if not path.is_dir():
            seen += (status.st_nlink, status.st_size, status.st_blocks < 1 << 15)
        if path.is_symlink():
            seen += (os.readlink(path),)
        elif path.is_file() and status.st_size < 1 << 20:
            seen += (path.read_bytes(),)
        if owners:
            seen += (status.st_uid, status.st_gid)
        if path.is_dir():
            seen += tuple((name, os.getxattr(path, name)) for name in os.listxattr(path) if name.startswith("user."))
        found[str(path.relative_to(top))] = seen
    return found


@contextmanager
def web(rawpod: Rawpod, *options: str, script: str = SLEEP) -> Iterator[str]:
    rawpod("run", "-d", "--name", "web", "--network", "none", *options, "host", "sh", "-c", script)
    try:
        yield "web"
    finally:
        rawpod("rm", "-f", "web")


def cgroup_of(rawpod: Rawpod) -> Cgroup:
    [listed] = json.loads(rawpod("ps", "-o", "json").stdout)
    return Cgroup(listed["rawpod"]["containers"]["web"]["cgroup"])


def test_a_tree_goes_in_and_comes_out_as_it_was(rawpod: Rawpod, here: Path) -> None:
    with web(rawpod):
        assert "copied" in rawpod("cp", "-a", f"{here}/tree", "web:/srv/new").stderr
        shown = rawpod("exec", "web", "stat", "-c", "%u %g %a %h", "/srv/new/program").stdout
        assert shown.split() == ["1000", "1001", "4755", "2"]
        assert rawpod("cp", "-qa", "web:srv/new", str(here / "out")).stderr == ""
        assert listing(here / "out", owners=True) == listing(here / "tree", owners=True)
        # Again, onto what is there: nothing is doubled, nothing follows a link.
        rawpod("cp", "-a", f"{here}/tree/.", "web:/srv/new")
        rawpod("cp", "-a", "web:/srv/new/.", str(here / "out"))
        assert listing(here / "out", owners=True) == listing(here / "tree", owners=True)
        rawpod("cp", "web:/srv/new", str(here / "mine"))
        rawpod("cp", f"{here}/tree", "web:/srv/roots")
        owned = rawpod("exec", "web", "find", "/srv/roots", "!", "-user", "root").stdout
    assert owned == ""
    assert {path.lstat().st_uid for path in (here / "mine").rglob("*")} == {0}
    # Whose program it was is not who it would be executed as.
    assert stat.S_IMODE((here / "mine/program").stat().st_mode) == 0o755


def test_archives_are_streamed_both_ways(rawpod: Rawpod, settings: Settings, here: Path) -> None:
    with web(rawpod, script="ln -s srv /link; " + SLEEP):
        packed = subprocess.run(["tar", "-C", here / "tree", "-czS", "."], capture_output=True, check=True).stdout
        target = [*arguments(settings, "cp", "-a", "-", "web:/srv")]
        subprocess.run(target, input=packed, check=True, timeout=60)
        # A directory of the archive that is a link in the container leads where it leads there.
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.addfile(tarfile.TarInfo("link/through"))
            subprocess.run(arguments(settings, "cp", "-", "web:/"), input=file.getvalue(), check=True, timeout=60)
        out = subprocess.run(arguments(settings, "cp", "web:/srv", "-"), capture_output=True, check=True, timeout=60)
        for bad, reason in ((b"no tar" * 200, "not a tar"), (packed[:-500], "standard input")):
            done = subprocess.run(target, input=bad, capture_output=True, check=False, timeout=60)
            assert (done.returncode, reason in done.stderr.decode()) == (2, True), done
        assert "no directory" in rawpod("cp", "-", "web:/etc/passwd", check=2).stderr
        # To the container itself, which must not stand still for it.
        with subprocess.Popen(arguments(settings, "cp", "web:/srv/below", "-"), stdout=subprocess.PIPE) as ours:
            into = arguments(settings, "exec", "-i", "web", "tar", "-C", "/tmp", "-x")
            subprocess.run(into, stdin=ours.stdout, check=True, timeout=60)
        assert rawpod("exec", "web", "ls", "/tmp/below").stdout == "binary\nsame\n"
        escape = io.BytesIO()
        with tarfile.open(fileobj=escape, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("../../escaped"))
        done = subprocess.run(target, input=escape.getvalue(), capture_output=True, check=False, timeout=60)
        assert "'..'" in done.stderr.decode()
    (here / "untarred").mkdir()
    subprocess.run(["tar", "-C", here / "untarred", "-xp"], input=out.stdout, check=True)
    (here / "untarred/srv/through").unlink()
    (here / "untarred/srv").rename(here / "srv")
    times = os.stat(here / "tree/below")
    os.utime(here / "srv/below", ns=(times.st_atime_ns, times.st_mtime_ns))
    wanted, seen = listing(here / "tree", owners=True), listing(here / "srv", owners=True)
    # GNU tar neither packs nor unpacks attributes unless it is asked to.
    assert {path: values[:3] for path, values in seen.items()} == {path: values[:3] for path, values in wanted.items()}


def test_volumes_are_written_into_and_the_kernels_files_refused(rawpod: Rawpod, here: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (here / "hosts").write_text("127.0.0.1 changed\n")
    with web(rawpod, "-v", f"{volume}:/data", "-v", f"{here}:/ro:ro", script="mkdir /down; " + SLEEP):
        rawpod("cp", f"{here}/hosts", "web:/data/")
        assert (volume / "hosts").read_text() == "127.0.0.1 changed\n"
        # /etc/hosts is a mount of one file: it stays one.
        rawpod("cp", f"{here}/hosts", "web:/etc")
        assert rawpod("exec", "web", "cat", "/etc/hosts").stdout == "127.0.0.1 changed\n"
        assert "/etc/hosts" in rawpod("exec", "web", "cat", "/proc/mounts").stdout
        (here / "link/etc").mkdir(parents=True)
        (here / "link/etc/hosts").symlink_to("elsewhere")
        assert "mounted" in rawpod("cp", f"{here}/link/.", "web:/", check=125).stderr
        assert "read-only" in rawpod("cp", f"{here}/hosts", "web:/ro/hosts2", check=125).stderr
        assert "read-only" in rawpod("cp", f"{here}/hosts", "web:/usr/hosts", check=125).stderr
        for path in ("/proc/sys/kernel/hostname", "/sys/fs/cgroup/x", "/dev/pts/9"):
            assert "kernel" in rawpod("cp", f"{here}/hosts", f"web:{path}", check=125).stderr
        for path in ("/proc/1/status", "/sys/kernel"):
            assert "kernel" in rawpod("cp", f"web:{path}", f"{here}/out", check=125).stderr
        assert not (here / "out").exists()
        (here / "sneaky/proc").mkdir(parents=True)
        (here / "sneaky/proc/version").touch()
        assert "kernel" in rawpod("cp", f"{here}/sneaky/.", "web:/", check=125).stderr


def test_what_does_not_go_together_is_said_and_nothing_written(rawpod: Rawpod, here: Path) -> None:
    with web(rawpod):
        for words, status, reason in (
            ((f"{here}/none", "web:/srv"), 125, "does not exist"),
            ((f"{here}/tree", "web:/no/such"), 125, "no directory"),
            ((f"{here}/tree", "web:/etc/passwd"), 2, "over the file"),
            (("web:/etc/passwd", f"{here}/tree/fifo"), 2, "neither a directory"),
            (("other:/etc", "/srv"), 125, "no pod"),
            (("-c", "side", "web:/etc", "/srv"), 125, "no container"),
        ):
            assert reason in rawpod("cp", *words, check=status).stderr, words
        assert rawpod("exec", "web", "ls", "-A", "/srv").stdout == ""


def test_a_container_that_has_ended_is_copied_from_and_to(rawpod: Rawpod, here: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    with web(rawpod, "-v", f"{volume}:/data", script="echo kept > /srv/kept; echo v > /data/v"):
        rawpod("logs", "-f", "web")  # to its end
        rawpod("cp", "web:/srv/kept", str(here))
        assert (here / "kept").read_text() == "kept\n"
        rawpod("cp", f"{here}/tree", "web:/srv/in")
        rawpod("cp", f"{here}/tree/program", "web:/data")
        assert (volume / "program").exists()
        rawpod("cp", "web:/srv/in/.", str(here / "out"))
        rawpod("cp", "web:/usr/bin/env", str(here / "env"))
        assert set(listing(here / "out", owners=False)) == set(listing(here / "tree", owners=False))
        assert not (here / "tree/proc").exists()


def test_a_container_with_users_of_its_own_gets_files_of_its_root(rawpod: Rawpod, here: Path, on_disk: Path) -> None:
    os.chmod(on_disk, 0o777)
    options = ("--userns", "auto", "-v", f"{on_disk}:/data")
    with web(rawpod, *options):
        rawpod("cp", f"{here}/tree", "web:/srv/in")
        rawpod("cp", "-a", f"{here}/tree/program", "web:/srv/kept")
        rawpod("cp", f"{here}/tree", "web:/data/tree")
        stated = rawpod(
            "exec", "web", "stat", "-c", "%u:%g", "/srv/in", "/srv/in/program", "/srv/kept", "/data/tree/link"
        )
        assert stated.stdout.split() == ["0:0", "0:0", "1000:1001", "0:0"]
        assert os.lstat(on_disk / "tree/program").st_uid == 0  # on disk the container's own numbers
        rawpod("exec", "web", "sh", "-c", "cp /usr/bin/env /srv/suid; chmod 4755 /srv/suid")
        rawpod("cp", "-a", "web:/srv/.", str(here / "out"))
    assert (here / "out/kept").stat().st_uid == 1000
    assert stat.S_IMODE((here / "out/suid").stat().st_mode) == 0o755


def test_a_container_stands_still_while_it_is_copied_and_runs_on_after_a_kill(
    rawpod: Rawpod, settings: Settings
) -> None:
    """A copy hangs, as nobody reads its archive, and is killed; a second one keeps the container frozen."""
    with web(rawpod, script="head -c 3000000 /dev/zero > /srv/zeros; : > /up; " + SLEEP):
        rawpod("exec", "web", "sh", "-c", "until test -e /up; do :; done")
        cgroup = cgroup_of(rawpod)
        copies = [
            subprocess.Popen(arguments(settings, "cp", "--pause", "web:/srv", "-"), stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for copy in copies:
            assert copy.stdout is not None
            copy.stdout.read(1)
        assert cgroup.frozen()
        copies[0].send_signal(signal.SIGKILL)
        copies[0].wait(30)
        os.waitpid(-1, 0)  # its guard, whose parent we have become
        assert cgroup.frozen()
        copies[1].send_signal(signal.SIGKILL)
        copies[1].wait(30)
        os.waitpid(-1, 0)
        assert not cgroup.frozen()
        for copy in copies:
            assert copy.stdout is not None
            copy.stdout.close()
        # One that its owner has frozen stays so; without a pause it is not touched.
        cgroup.freeze()
        assert rawpod("cp", "--pause", "web:/srv/zeros", "-").stdout
        assert cgroup.frozen()
        cgroup.thaw()


def test_one_container_of_several_and_what_they_share(pods: Pods, tmp_path: Path) -> None:
    """A pod of a monitor of its own, as the supervisor's are: named POD/CONTAINER, or with -c."""
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    forever = ("sh", "-c", "echo $HOSTNAME > /own; " + SLEEP)
    pod = pods.start(
        container("main", *forever, **shared),
        container("side", *forever, **shared),
        name="two",
        volumes=[{"name": "shared", "emptyDir": {"medium": "Memory"}}],
    )
    pod.running()
    (tmp_path / "file").write_text("shared")

    def cp(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments(pods.settings, "cp", *words), capture_output=True, text=True, timeout=60, check=False
        )

    assert "several containers" in cp(f"{tmp_path}/file", "two:/shared").stderr
    assert cp(f"{tmp_path}/file", "two/main:/shared").returncode == 0
    assert cp(f"{tmp_path}/file", "two/side:/only-here").returncode == 0
    assert cp("-c", "side", "two:/shared/file", f"{tmp_path}/out").returncode == 0
    assert (tmp_path / "out").read_text() == "shared"
    assert "does not exist" in cp("two/main:/only-here", f"{tmp_path}/out").stderr
    pod.stop()
    # What was in memory is gone; what was written is there.
    assert "does not exist" in cp("two/side:/shared/file", f"{tmp_path}/out").stderr
    assert cp("two/side:/only-here", f"{tmp_path}/out2").returncode == 0
