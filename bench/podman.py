"""`podman run --rm --network none` of /bin/true with rawpod-oci, crun and runc, which take turns on one storage.

As root, where podman is installed (the test machine): .venv/bin/python -m bench.podman [ROUNDS]
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import lab
from tests.callers import IMAGE, RAWPOD_OCI, Podman, run

RUNTIMES = ("crun", "runc", str(RAWPOD_OCI))


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    busybox = shutil.which("busybox")
    present = [path for path in map(shutil.which, RUNTIMES) if path]
    if not busybox or not shutil.which("podman"):
        raise SystemExit("bench.podman: needs podman and busybox-static")
    print(lab.machine(), run(["podman", "--version"]).stdout.strip(), sep="; ")
    home = Path(tempfile.mkdtemp(prefix="rp-bench-", dir="/var/tmp"))
    try:
        podman = Podman(present[0], home, Path(busybox))
        taken: dict[str, list[float]] = {runtime: [] for runtime in present}
        for number in range(rounds + 1):
            for runtime in present:
                began = time.perf_counter()
                podman.using(runtime)("run", "--rm", "--network", "none", IMAGE, "true")
                if number:
                    taken[runtime].append(time.perf_counter() - began)
        for runtime, seconds in taken.items():
            print(f"{Path(runtime).name:<12} median {statistics.median(seconds):.2f} s", *(f"{s:.2f}" for s in seconds))
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
