"""Tests as root on a host where the controllers are on cgroup v2."""

import pytest

from cgroups.hierarchy import V2_CONTROLLERS, find
from tests.host import box, cgroup, hierarchy, host, leak_oracle, probe, settings, v2_layout

__all__ = ["box", "cgroup", "hierarchy", "host", "leak_oracle", "probe", "settings", "v2_layout"]


@pytest.fixture(scope="session", autouse=True)
def controllers(host: None) -> None:
    """Skip where the host lacks a controller on v2."""
    missing = set(V2_CONTROLLERS) - find().controllers
    if missing:
        pytest.skip(f"needs {', '.join(sorted(missing))} on cgroup v2")
