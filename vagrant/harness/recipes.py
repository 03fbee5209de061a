"""What goes into each image. A recipe is data: its hash names the image in the cache."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

RELEASES = ("bookworm", "trixie")
CHECKOUT = Path(__file__).resolve().parents[2]
PROVISION = Path(__file__).resolve().parent.parent / "provision"

FORMAT = 1
"""Raised when the way an image is put together changes, so that older ones are not reused."""

BOOT_PACKAGES = ("linux-image-cloud-amd64", "busybox-static")
STANDARD_PACKAGES = (
    *("python3", "python3-venv", "nftables", "iproute2", "procps", "kmod", "git", "make", "zstd", "ca-certificates"),
    *("systemd-sysv", "dbus"),
    # The peers, and the callers of an OCI runtime, with what they call in turn.
    *("crun", "runc", "podman", "conmon", "netavark", "iptables", "catatonit", "containerd"),
)
PAYLOAD_PACKAGES = ("nginx", "curl")
PAYLOAD = "opt/rawpod-images/nginx.tar.zst"
MINIMAL_PACKAGES = ("git", "make", "ca-certificates")
BOX_PACKAGES = (
    *("openssh-server", "sudo", "rsync", "udev", "iproute2", "systemd-resolved", "zstd"),
    *("systemd-sysv", "dbus", "git", "make", "ca-certificates", "grub-pc-bin", "grub2-common", "initramfs-tools"),
)


@dataclass(frozen=True)
class Recipe:
    """One image: where its packages come from, which they are, and the script that finishes it."""

    name: str
    release: str
    packages: tuple[str, ...]
    size: str
    mirror: str
    provision: str
    requirements: str = ""
    payload: tuple[str, ...] = ()
    """Packages of a root tar for rawpod to run, at PAYLOAD in the image."""

    @property
    def key(self) -> str:
        """Name of the built image in the cache."""
        inputs = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return f"{self.name}-{self.release}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"

    def sources(self) -> list[str]:
        """The lines of sources.list(5)."""
        return [
            f"deb {self.mirror}/debian {self.release} main",
            f"deb {self.mirror}/debian {self.release}-updates main",
            f"deb {self.mirror}/debian-security {self.release}-security main",
        ]


def recipe(name: str, release: str) -> Recipe:
    """The recipe of image `name` ("standard", "minimal" or "box") for a Debian release."""
    packages, size = {
        "standard": (STANDARD_PACKAGES, "8G"),
        "minimal": (MINIMAL_PACKAGES, "12G"),
        "box": (BOX_PACKAGES, "20G"),
    }[name]
    return Recipe(
        name=name,
        release=release,
        packages=BOOT_PACKAGES + packages,
        size=size,
        mirror=os.environ.get("RAWPOD_VM_MIRROR", "http://deb.debian.org"),
        provision=(PROVISION / name).read_text(),
        requirements=_requirements() if name == "standard" else "",
        payload=PAYLOAD_PACKAGES if name == "standard" else (),
    )


def _requirements() -> str:
    """Every requirement of the tests as one list, however the files include each other."""
    lines = []
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (CHECKOUT / file).read_text().splitlines():
            if line and not line.startswith(("#", "-r ")):
                lines.append(line)
    return "\n".join(lines) + "\n"
