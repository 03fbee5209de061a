"""The `host` image: the machine's own /usr, read-only, under a root made for the purpose.

Nothing is downloaded and next to nothing copied: of /etc only what programs in /usr need to run, picked by name.
Accounts, keys, host names and whatever else belongs to this machine alone are not among it.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rootfs import skeleton
from rootfs.files import new_file, replace_file, sync_filesystem
from rootfs.removal import remove_tree
from rootfs.skeleton import Entry

# Everything a root gets from /usr. On a machine with merged /usr all but the first are links, else directories.
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class HostBind(NamedTuple):
    """A directory of the host that the image shows, read-only and without devices, at `destination`."""

    source: str
    destination: str


class HostImage(NamedTuple):
    """The host image as it is now. `root` is its only lower directory, `size` what it takes on disk, in bytes."""

    digest: str
    root: Path
    binds: tuple[HostBind, ...]
    created: float
    size: int


def ensure(images: Path, machine: str = "/") -> HostImage:
    """The host image below `images`, made or made anew if the machine's files have changed since.

    Unchanged, it costs the stat(2) of some thirty files. `machine` is the root to take them from.
    Roots of older states stay for the containers that use them, until prune().
    """
    signature = _signature(machine)
    return _current(images, signature) or _build(images, signature, machine)


def prune(images: Path, in_use: frozenset[str]) -> list[str]:
    """Remove the roots of older states, except those whose digest is in use; the digests removed."""
    removed = []
    with _locked(images) as base:
        keep = in_use | {_state(images).get("digest", "")}
        for name in os.listdir(base):
            if name.startswith("sha256-") and name.replace("-", ":", 1) not in keep:
                remove_tree(base, name)
                removed.append(name.replace("-", ":", 1))
    return removed


def _state(images: Path) -> dict[str, str]:
    try:
        with open(images / "host" / "current.json", "rb") as file:
            state = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _current(images: Path, signature: str) -> HostImage | None:
    state = _state(images)
    if state.get("signature") != signature:
        return None
    root = images / "host" / str(state["digest"]).replace(":", "-")
    if not root.is_dir():
        return None
    binds = tuple(HostBind(*bind) for bind in state["binds"])
    return HostImage(state["digest"], root, binds, float(state["created"]), int(state["size"]))


def _build(images: Path, signature: str, machine: str) -> HostImage:
    links, binds = _programs(machine)
    entries = [*skeleton.directories(), *links, *skeleton.files(machine)]
    digest = _digest(entries)
    name = digest.replace(":", "-")
    with _locked(images) as base:
        for leftover in os.listdir(base):
            if leftover.startswith("tmp-"):
                remove_tree(base, leftover)
        if name not in os.listdir(base):
            os.mkdir("tmp-root", 0o755, dir_fd=base)
            root = os.open("tmp-root", _DIRECTORY, dir_fd=base)
            try:
                _write(root, entries)
                sync_filesystem(root)
            finally:
                os.close(root)
            os.rename("tmp-root", name, src_dir_fd=base, dst_dir_fd=base)
            os.fsync(base)
        state = {
            "signature": signature,
            "digest": digest,
            "binds": binds,
            "created": time.time(),
            "size": sum(len(entry.data) for entry in entries),
        }
        replace_file(base, "current.json", json.dumps(state).encode())
    image = _current(images, signature)
    assert image is not None, "just written"
    return image


def _write(root: int, entries: list[Entry]) -> None:
    os.fchmod(root, 0o755)
    for entry in entries:
        if entry.kind == "directory":
            os.mkdir(entry.path, dir_fd=root)
            os.chmod(entry.path, entry.mode, dir_fd=root)
        elif entry.kind == "link":
            os.symlink(entry.data, os.fsencode(entry.path), dir_fd=root)
        else:
            new_file(root, entry.path, entry.data, mode=entry.mode)


def _programs(machine: str) -> tuple[list[Entry], list[HostBind]]:
    """/usr and what goes with it: links as the machine has them, directories to bind."""
    links, binds = [], []
    for name in _PROGRAMS:
        path = os.path.join(machine, name)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            links.append(Entry(name, "link", 0o777, os.fsencode(os.readlink(path))))
        elif stat.S_ISDIR(mode):
            links.append(Entry(name, "directory", 0o755, b""))
            binds.append(HostBind(path, "/" + name))
    return links, binds


def _signature(machine: str) -> str:
    """What changes when any of the machine's files that the image is made from does."""
    seen: list[object] = [skeleton.VERSION, machine]
    for path in (*_PROGRAMS[1:], *skeleton.sources(machine)):
        try:
            status = os.lstat(os.path.join(machine, path))
        except FileNotFoundError:
            continue
        # A directory of programs changes with every package; only a link's being one matters.
        if path in _PROGRAMS and stat.S_ISDIR(status.st_mode):
            seen.append((path, "directory"))
        else:
            seen.append((path, status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode))
    return repr(seen)


def _digest(entries: list[Entry]) -> str:
    import hashlib  # only here: to look the image up stays cheap

    digest = hashlib.sha256()
    for entry in entries:
        header = json.dumps([entry.path, entry.kind, entry.mode, len(entry.data)])
        digest.update(header.encode() + b"\n" + entry.data)
    return "sha256:" + digest.hexdigest()


@contextmanager
def _locked(images: Path) -> Iterator[int]:
    """A descriptor of IMAGES/host, made if it is missing, while nobody else builds there."""
    directory = images / "host"
    # Layers of other images are below, with setuid programs of whom they came from.
    images.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    base = os.open(directory, _DIRECTORY)
    try:
        fcntl.flock(base, fcntl.LOCK_EX)
        yield base
    finally:
        os.close(base)
