"""Where an instance of rawpod keeps what it makes. Several instances with different settings live side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernel.record import Record

DEFAULT_ROOT = Path("/var/lib/rawpod")
DEFAULT_REGISTRIES = Path("/etc/rawpod/registries.toml")


class Settings(Record):
    """The roots and names of one instance.

    `cgroup` is a path as /proc/self/cgroup shows it, None for rawpod/ in the delegated subtree.
    `missing_controllers` is "refuse" or "warn": what becomes of a limit whose controller is not on cgroup v2.
    `internal` pods reach one another and the host, nothing beyond. `registries` is how to get images, docs/images.md.
    """

    root: Path = DEFAULT_ROOT
    state: Path = Path("/run/rawpod")
    cgroup: str | None = None
    bridge: str = "rawpod0"
    subnet: str = "10.88.0.0/16"
    socket: Path = Path("/run/rawpod/rawpod.sock")
    missing_controllers: str = "refuse"
    internal: bool = False
    registries: Path = DEFAULT_REGISTRIES

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def overlay(self) -> Path:
        return self.root / "overlay"

    @property
    def database(self) -> Path:
        return self.root / "state.db"

    @property
    def logs(self) -> Path:
        """/var/log/rawpod; an instance with a root of its own keeps its logs there."""
        return Path("/var/log/rawpod") if self.root == DEFAULT_ROOT else self.root / "log"

    @property
    def pods(self) -> Path:
        return self.state / "pods"

    def pod(self, uid: str) -> Path:
        """The directory of one pod's actual state."""
        return self.pods / uid

    def to_json(self) -> dict[str, object]:
        """Plain data, for a process of another instance to be told."""
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in zip(self._fields, self, strict=True)
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Settings:
        """The inverse of `to_json`."""
        paths = {"root", "state", "socket", "registries"}
        return cls(**{key: Path(str(value)) if key in paths else value for key, value in data.items()})  # type: ignore[arg-type]
