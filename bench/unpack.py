"""One layer of a Debian userland unpacked by rawpod, `tar -xzf`, `podman load` and `umoci unpack`, taking turns.

As root: .venv/bin/python -m bench.unpack [ROUNDS [LAYER.tar.gz [DIRECTORY]]]

Without a layer, or with `-`, mmdebstrap makes one, which is kept below /var/tmp/rawpod-bench. It is unpacked into a
tmpfs unless a directory is named: a disk that cannot follow would hide what differs. Every command is started as a user
would, and its time is that of the whole process; memory is the largest resident set of any process of it (getrusage(2),
ru_maxrss), which begins with that of this program, some 30 MB.
"""

from __future__ import annotations

import hashlib
import json
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
from kernel import mounts, process

_HOME = Path("/var/tmp/rawpod-bench")
_PACKAGES = "build-essential,git,nginx,openssh-client,vim,python3-pip"
_OURS = """
import os, sys
from rootfs.layers.unpack import unpack
print(unpack(0, "layer", os.open(sys.argv[1], os.O_RDONLY)))
"""


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    given = sys.argv[2] if len(sys.argv) > 2 else "-"
    layer = _debian() if given == "-" else Path(given).resolve()
    process.unshare(process.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    home = Path(tempfile.mkdtemp(prefix="rp-bench-", dir=sys.argv[3] if len(sys.argv) > 3 else "/var/tmp"))
    try:
        if len(sys.argv) <= 3:
            mounts.mount("tmpfs", home, "tmpfs", 0, "mode=755")
        _compare(layer, home, rounds)
    finally:
        if len(sys.argv) <= 3:
            mounts.umount2(home, mounts.MNT_DETACH)
        shutil.rmtree(home, ignore_errors=True)


def _compare(layer: Path, home: Path, rounds: int) -> None:
    print(lab.machine(), *(_version(name) for name in ("tar", "podman", "umoci")), sep="; ")
    entries = subprocess.run(["tar", "-tzf", layer], capture_output=True, check=True).stdout.count(b"\n")
    layout = _layout(layer, home / "layout")
    target = home / "target"
    commands: dict[str, list[str | Path]] = {
        "rawpod": [sys.executable, "-c", _OURS, target],
        "tar -xzf": ["tar", "-C", target, "-xzf", layer],
        "podman load": ["podman", "--root", target, "--runroot", home / "run", "load", "-i", layout],
        "umoci unpack": ["umoci", "unpack", "--image", f"{layout}:bench", target / "bundle"],
    }
    present = {name: command for name, command in commands.items() if shutil.which(command[0])}
    seconds: dict[str, list[float]] = {name: [] for name in present}
    memory = dict.fromkeys(present, 0)
    for number in range(rounds + 1):
        for name, command in present.items():
            target.mkdir()
            os.sync()
            taken, resident = _run(command, layer)
            subprocess.run(["umount", "-R", target / "overlay"], capture_output=True)
            subprocess.run(["rm", "-rf", target], check=True)
            if number:  # the first round fills the page cache
                seconds[name].append(taken)
                memory[name] = max(memory[name], resident)
    size = sum(len(chunk) for chunk in _chunks(layer)) / 1e6
    compressed, load = layer.stat().st_size / 1e6, os.getloadavg()[0]
    print(f"{size:.0f} MB of {entries} entries, {compressed:.0f} MB compressed; load {load:.1f}")
    best = min(statistics.median(times) for name, times in seconds.items() if name != "rawpod")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{name:14} median {median:6.2f} s ({min(times):.2f} to {max(times):.2f}), {size / median:4.0f} MB/s, "
            f"{memory[name] / 1e6:4.0f} MB resident, {median / best:.2f} of the best peer"
        )


def _run(command: list[str | Path], layer: Path) -> tuple[float, int]:
    """(seconds, largest resident set in bytes) of a command."""
    with open(layer, "rb") as archive, tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        child = subprocess.Popen(command, stdin=archive, stdout=said, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        taken = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise SystemExit(f"{command}: status {child.returncode}: {said.read().decode(errors='replace')}")
    return taken, usage.ru_maxrss * 1024


def _debian() -> Path:
    layer = _HOME / "debian.tar.gz"
    if not layer.exists():
        _HOME.mkdir(exist_ok=True)
        tar = _HOME / "debian.tar"
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={_PACKAGES}", "trixie", tar]
        subprocess.run(command, check=True)
        subprocess.run(["gzip", "-6", tar], check=True)
    return layer


def _layout(layer: Path, layout: Path) -> Path:
    """An OCI layout directory with an image of that one layer."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    diff_id = hashlib.sha256()
    for chunk in _chunks(layer):
        diff_id.update(chunk)
    with open(layer, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    shutil.copyfile(layer, blobs / digest)

    def blob(kind: str, value: object) -> dict[str, object]:
        data = json.dumps(value).encode()
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": f"sha256:{name}", "size": len(data)}

    rootfs = {"type": "layers", "diff_ids": [f"sha256:{diff_id.hexdigest()}"]}
    config = blob("config", {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs})
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    layers = [{"mediaType": kind, "digest": f"sha256:{digest}", "size": layer.stat().st_size}]
    manifest = blob("manifest", {"schemaVersion": 2, "config": config, "layers": layers})
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


def _chunks(layer: Path) -> Iterator[bytes]:
    from isal import igzip

    with igzip.open(layer) as file:
        yield from iter(lambda: file.read(1 << 20), b"")


def _version(name: str) -> str:
    done = subprocess.run([name, "--version"], capture_output=True, text=True) if shutil.which(name) else None
    return done.stdout.splitlines()[0] if done else f"no {name}"


if __name__ == "__main__":
    main()
