"""What is taken away from the pods' network is put back by the supervisor (faults, row 20)."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from netns.firewall import table_of
from netns.veth import link_name
from netns.watch import Watch
from runtime.settings import Settings
from tests.linux.test_supervisor_life import PODS, Supervisor, deployment, ready, supervisor

__all__ = ["supervisor"]
PATIENCE = 100


def _until(condition: Callable[[], bool], what: str) -> None:
    """Look again whenever the kernel tells of a change of links or rules."""
    end = time.monotonic() + PATIENCE
    with Watch() as watch:
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"{what} was not put back within {PATIENCE} s")
            select.select(watch.descriptors, [], [], 0.2)
            watch.lost()


def test_a_deleted_link_and_flushed_rules_are_put_back(supervisor: Supervisor, settings: Settings) -> None:
    supervisor.apply(deployment(1))
    (made,) = supervisor.until(PODS, ready(1))
    link = Path("/sys/class/net") / link_name(made["metadata"]["uid"])
    before = int((link / "ifindex").read_text())
    subprocess.run(["ip", "link", "delete", link.name], check=True)
    _until(lambda: link.exists() and int((link / "ifindex").read_text()) != before, "the link")
    address = made["status"]["podIP"]
    subprocess.run(["nft", "delete", "table", "inet", table_of(settings.bridge)], check=True)
    listing = ["nft", "list", "table", "inet", table_of(settings.bridge)]
    _until(lambda: subprocess.run(listing, capture_output=True).returncode == 0, "the table")
    (now,) = supervisor.pods()
    assert now["status"]["podIP"] == address
