"""Whole commands: `rawpod run` beside crun, runc and podman where they are installed; `ps` and `get` with 50 pods.

As root: .venv/bin/python -m bench.commands [RUNS]

Every command is started as a user would, interpreter start-up included. The peers get a bundle with the machine's /usr
read-only, as the `host` image has it, and no network, as podman's --network none and rawpod's.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from bench import lab


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(lab.machine())
    lab.own_host()
    with lab.instance() as home:
        root = bundle(home)
        own = lab.seconds([lab.RAWPOD, "run", "--rm", "--network", "none", "host", "true"], runs)
        lab.show("rawpod run --rm --network none host true", own)
        lab.show("rawpod run --rm host true", lab.seconds([lab.RAWPOD, "run", "--rm", "host", "true"], runs))
        for name, command in _peers(root).items():
            if shutil.which(command[0]):
                times = lab.seconds(list(command), runs)
                lab.show(name, times)
                print(f"{'':44} rawpod --network none / {command[0]}: {_ratio(own, times):.1f}")
        with lab.supervisor(home):
            lab.rawpod("apply", "-f", "-", text=lab.deployment("bench", 50, ["sleep", "infinity"]))
            lab.wait_running(home, 50)
            lab.show("rawpod ps, 50 pods", lab.seconds([lab.RAWPOD, "ps"], runs))
            lab.show("rawpod get pods, 50 pods", lab.seconds([lab.RAWPOD, "get", "pods"], runs))


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(one) / statistics.median(other)


def _peers(bundle: Path) -> dict[str, tuple[str, ...]]:
    peers: dict[str, tuple[str, ...]] = {
        "crun run": ("crun", "--cgroup-manager=disabled", "run", "--bundle", str(bundle), "bench-crun"),
        "runc run": ("runc", "run", "--bundle", str(bundle), "bench-runc"),
    }
    image = os.environ.get("BENCH_PODMAN_IMAGE")
    if image:
        peers["podman run --rm --network none"] = ("podman", "run", "--rm", "--network", "none", image, "true")
    return peers


def bundle(home: Path) -> Path:
    """A bundle with the machine's /usr, whose process is `true`."""
    bundle = home / "bundle"
    for name in ("proc", "dev", "sys", "usr", "etc", "tmp"):
        (bundle / "rootfs" / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (bundle / "rootfs" / name).symlink_to(f"usr/{name}")
    subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": ["true"]}
    config["mounts"].append(
        {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "nodev"]}
    )
    # Without cgroup controllers there is nothing to limit; both would fail on the device program otherwise.
    config["linux"].pop("resources", None)
    path.write_text(json.dumps(config))
    return bundle


if __name__ == "__main__":
    main()
