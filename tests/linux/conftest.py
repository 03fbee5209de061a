"""Tests as root on any Linux with cgroup v2 mounted, also where controllers are still on v1."""

from tests.host import box, cgroup, hierarchy, host, leak_oracle, on_disk, probe, settings, v2_layout

__all__ = ["box", "cgroup", "hierarchy", "host", "leak_oracle", "on_disk", "probe", "settings", "v2_layout"]
