"""An image of several layers pulled from a registry on loopback by rawpod, podman and skopeo, taking turns.

As root: .venv/bin/python -m bench.pull [ROUNDS [LAYERS [MEGABYTES]]]

The layers are made of the machine's own /usr, of so many megabytes each, compressed by gzip. All of it happens in
network and mount namespaces of their own, and all files are on a tmpfs: a disk that cannot follow would hide what
differs. Every command is started as a user would, and its time is that of the whole process. Decompression alone, by
two processes that throw away what comes of it, is what a pull can hardly be faster than; unpacking alone is what rawpod
does with layers that are there. skopeo unpacks nothing and is shown for the transfer.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import lab
from kernel import mounts
from tests.registry_lab import Layer, Layout, copy, registry

_MEGA = 1_000_000
_DECOMPRESS = """
import sys
from isal import igzip
for path in sys.argv[1:]:
    with igzip.open(path) as file:
        while file.read(1 << 20):
            pass
"""
_UNPACK = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from rootfs.layers.unpack import unpack
def work(path):
    os.makedirs(target := sys.argv[1] + "/" + path[-64:])
    unpack(os.open(path, os.O_RDONLY), path, os.open(target, os.O_RDONLY))
with ThreadPoolExecutor(2) as pool:
    list(pool.map(work, sys.argv[2:]))
"""


def main() -> None:
    rounds, layers, megabytes = (int(value) for value in (*sys.argv[1:4], *("5", "8", "30")[len(sys.argv) - 1 :]))
    lab.own_host()
    home = Path(tempfile.mkdtemp(prefix="rp-bench-"))
    mounts.mount("tmpfs", home, "tmpfs", 0, "mode=755")
    try:
        _compare(home, rounds, layers, megabytes)
    finally:
        mounts.umount2(home, mounts.MNT_DETACH)
        home.rmdir()


def _compare(home: Path, rounds: int, layers: int, megabytes: int) -> None:
    layout = Layout(home / "layout")
    made = [Layer(files) for files in _files(layers, megabytes * _MEGA)]
    size = sum(len(content) for layer in made for content in layer.files.values())
    layout.tag(layout.image(made), "bench")
    del made
    blobs = sorted((path for path in (home / "layout/blobs/sha256").iterdir()), key=lambda path: -path.stat().st_size)
    packed = sum(path.stat().st_size for path in blobs[:layers])
    with registry(home / "registry") as source:
        copy(f"oci:{layout.path}:bench", f"docker://{source.host}/bench:1")
        (home / "registries.toml").write_text(f'registries."{source.host}".insecure = "http"')
        print(f"{lab.machine()}; {layers} layers, {size / _MEGA:.0f} MB, {packed / _MEGA:.0f} MB compressed")
        seconds: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            for name, commands in _commands(home, source.host, blobs[:layers]).items():
                taken = _run(commands, home)
                if number:  # the first round fills the page cache
                    seconds.setdefault(name, []).append(taken)
        least = statistics.median(seconds["decompression alone, 2 processes"])
        for name, times in seconds.items():
            middle = statistics.median(times)
            print(f"{name:36} {middle:6.2f} s   {min(times):.2f} to {max(times):.2f}   {middle / least:.2f} times")


def _commands(home: Path, host: str, blobs: list[Path]) -> dict[str, list[list[str]]]:
    """What is timed: for each name the commands that run side by side."""
    target, image = str(home / "target"), f"{host}/bench:1"
    options = ["--root", f"{target}/root", "--state", f"{target}/state", "--registries", str(home / "registries.toml")]
    podman = ["podman", "--root", f"{target}/root", "--runroot", f"{target}/run", "--storage-driver", "overlay"]
    skopeo = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
    halves = (blobs[0::2], blobs[1::2])
    found = {
        "decompression alone, 2 processes": [
            [sys.executable, "-c", _DECOMPRESS, *map(str, half)] for half in halves if half
        ],
        "unpacking alone, 2 workers": [[sys.executable, "-c", _UNPACK, target, *map(str, blobs)]],
        "rawpod pull": [[str(lab.RAWPOD), *options, "pull", "--quiet", image]],
        "podman pull": [[*podman, "pull", "--quiet", "--tls-verify=false", image]],
        "skopeo copy, without unpacking": [[*skopeo, f"docker://{image}", f"dir:{target}/copy"]],
    }
    return {name: commands for name, commands in found.items() if shutil.which(commands[0][0])}


def _run(commands: list[list[str]], home: Path) -> float:
    (home / "target").mkdir()
    start = time.perf_counter()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands]
    for process in running:
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(errors.decode())
    taken = time.perf_counter() - start
    subprocess.run(["umount", "-R", home / "target/root/overlay"], capture_output=True, check=False)
    subprocess.run(["rm", "-rf", home / "target"], check=True)
    return taken


def _files(layers: int, size: int) -> Iterator[dict[str, bytes]]:
    """So many times about `size` bytes of the machine's files."""
    found: dict[str, bytes] = {}
    there = 0
    for directory, folders, names in os.walk("/usr/lib"):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_symlink() or not path.is_file():
                continue
            found[str(path)[1:]] = path.read_bytes()
            there += len(found[str(path)[1:]])
            if there >= size:
                yield found
                layers -= 1
                if not layers:
                    return
                found, there = {}, 0
    raise SystemExit(f"/usr/lib has not enough files for {layers} more layers")


if __name__ == "__main__":
    main()
