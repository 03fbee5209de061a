"""Images made of Debian packages by mmdebstrap(1), for who has no registry: one layer and a configuration.

What is made follows from the release's packages alone. Every time in it that is later than the release's own date,
which its InRelease file has, is set to that date, so that the same packages make the same image on another day, to the
digest. SOURCE_DATE_EPOCH stands for the date where it is given (reproducible-builds.org).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

from kernel import credentials
from kernel.errors import BadInput, HostError, RawpodError
from kernel.mounts import MS_PRIVATE, MS_REC, mount
from kernel.process import CLONE_NEWNS, unshare
from rootfs.files import new_file
from rootfs.images import model
from rootfs.images.image import Image, ImageConfig
from rootfs.images.importing import add_image, config_document, timestamp
from rootfs.images.ingest import Ingest, canonical_name
from rootfs.images.model import Descriptor
from rootfs.images.places import Places
from rootfs.layers.pack import pack
from rootfs.removal import remove_tree

PROGRAM = "mmdebstrap"
VARIANTS = ("minbase", "essential", "apt", "buildd", "standard", "custom", "extract")

_RELEASE = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?:=[A-Za-z0-9.+~:-]+)?")
_MIRROR = re.compile(r"(?:deb(?: \[[^\]\n]*\])? )?(?:https?|file|copy)://?[^\s-][^\s]*(?: [^\n]*)?")
_SHELLS = ("bin/bash", "usr/bin/bash")
_LISTS = "var/lib/apt/lists"
_SIGKILL = 9
_DAY = 86_400
_TOLD = 20


class Base(NamedTuple):
    """What is asked for: a release's name, further packages, where they come from (apt's default for nothing)."""

    release: str
    include: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    variant: str = "minbase"

    def check(self) -> None:
        """Raise BadInput for what is none: each of these becomes a word of a command line."""
        if not _RELEASE.fullmatch(self.release):
            raise BadInput(f"release {self.release[:60]!r} is not one of Debian", remedy="as trixie or bookworm")
        for package in self.include:
            if not _PACKAGE.fullmatch(package):
                raise BadInput(
                    f"package {package[:60]!r} is not a package's name", remedy="NAME, NAME:ARCH, NAME=VERSION"
                )
        for mirror in self.mirrors:
            if not _MIRROR.fullmatch(mirror):
                remedy = "http://HOST/debian, or a line of sources.list(5)"
                raise BadInput(f"mirror {mirror[:100]!r} is not one", remedy=remedy)
        if self.variant not in VARIANTS:
            raise BadInput(f"unknown variant {self.variant[:60]!r}", remedy=f"one of {', '.join(VARIANTS)}")

    def command(self, target: Path) -> list[str]:
        """The command line that makes it in the empty directory `target`, and leaves apt's lists there."""
        options = ["--mode=root", f"--variant={self.variant}", "--format=directory", "--skip=cleanup/apt/lists"]
        if self.include:
            options.append(f"--include={','.join(self.include)}")
        return [PROGRAM, *options, self.release, str(target), *self.mirrors]

    def shown(self) -> str:
        """The command that made it, for the image's history."""
        words = ["rawpod image build-base", f"--release {self.release}", f"--variant {self.variant}"]
        words += [f"--include {','.join(self.include)}"] if self.include else []
        return " ".join([*words, *(f"--mirror {mirror!r}" for mirror in self.mirrors)])


def build_base(
    ingest: Ingest,
    places: Places,
    name: str,
    base: Base,
    *,
    source_date: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Image:
    """Make the image `name`. `tell` gets mmdebstrap's lines; `source_date` is seconds since 1970.

    Raises BadInput for words that are none, HostError without mmdebstrap, RawpodError when that fails, with its last
    lines. Nothing is left of an image that is not finished.
    """
    canonical_name(name)
    base.check()
    if shutil.which(PROGRAM) is None:
        raise HostError(f"{PROGRAM} is not installed", remedy=f"apt install {PROGRAM}")
    ingest.forget()
    with places.temporary() as directory:
        _run(base.command(directory.path), tell, source_date)
        date = source_date if source_date is not None else _release_date(directory.path)
        _clear_lists(directory.path)
        _settle(directory.path, date)
        with ingest.stream() as stream:
            packed = pack(directory.fd, stream.fd, upper=False, compression="gzip")
            stream.keep(packed.digest)
        shell = "/bin/bash" if any((directory.path / shell).exists() for shell in _SHELLS) else "/bin/sh"
    layer = Descriptor(model.OCI_LAYER + "+gzip", packed.digest, packed.size)
    ingest.unpack(layer, packed.diff_id)
    history = [{"created": timestamp(date), "created_by": base.shown()}]
    config = config_document(ImageConfig(cmd=(shell,)), [packed.diff_id], created=date, history=history)
    return ingest.commit(name, add_image(ingest, config, [layer]))


def _run(command: Sequence[str], tell: Callable[[str], None], source_date: int | None) -> None:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    environment |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    if source_date is not None:
        environment["SOURCE_DATE_EPOCH"] = str(source_date)
    last: deque[str] = deque(maxlen=_TOLD)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
        preexec_fn=_alone,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line.rstrip())
                tell(line.rstrip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        wrong = [line for line in last if line.startswith(("E:", "W:"))] or list(last)
        raise RawpodError(f"{PROGRAM} failed with status {process.returncode}: {'; '.join(wrong)}")


def _alone() -> None:
    """In mmdebstrap's process: what it mounts in the new root is gone with it, however it ends; and it ends with us."""
    credentials.set_parent_death_signal(_SIGKILL)
    unshare(CLONE_NEWNS)
    mount(None, Path("/"), None, MS_REC | MS_PRIVATE)


def _release_date(root: Path) -> int:
    """The latest date of the InRelease files, which a repository signs; now where there is none."""
    dates = []
    for path in (root / _LISTS).glob("*Release"):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("Date:"):
                dates.append(int(parsedate_to_datetime(line.partition(":")[2].strip()).timestamp()))
                break
    return max(dates, default=int(time.time()))


def _clear_lists(root: Path) -> None:
    """Take away what apt has fetched; the directories that it wants stay."""
    lists = os.open(root / _LISTS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(lists):
            if name not in ("partial", "auxfiles"):
                remove_tree(lists, name)
    finally:
        os.close(lists)


def _settle(root: Path, date: int) -> None:
    """No time after `date`: those of files, and the days in /etc/shadow on which passwords were set."""
    for path in ("etc/shadow", "etc/shadow-"):
        _settle_shadow(root / path, date // _DAY)
    for path in _all(root):
        status = os.lstat(path)
        if status.st_mtime > date:
            os.utime(path, (date, date), follow_symlinks=False)


def _settle_shadow(path: Path, day: int) -> None:
    """shadow(5): the third field counts days since 1970."""
    try:
        status = os.lstat(path)
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines):
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdecimal() and int(fields[2]) > day:
            fields[2] = str(day)
            lines[number] = ":".join(fields)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.unlink(path.name, dir_fd=directory)
        data = "".join(f"{line}\n" for line in lines).encode()
        new_file(directory, path.name, data, mode=status.st_mode & 0o7777, uid=status.st_uid, gid=status.st_gid)
    finally:
        os.close(directory)


def _all(root: Path) -> Iterator[str]:
    """Everything below, what a directory holds before the directory."""
    for directory, directories, files in os.walk(root, topdown=False):
        for name in (*files, *directories):
            yield os.path.join(directory, name)
    yield str(root)
