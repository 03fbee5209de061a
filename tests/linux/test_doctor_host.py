"""`rawpod doctor` on a real host: what it tries works, leaves nothing behind, and is told in text and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from runtime import doctor as checks
from runtime import trials
from runtime.cli.doctor import doctor
from runtime.doctor import Level, examine
from runtime.settings import Settings

REPOSITORY = Path(__file__).parents[2]


def _run(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(doctor, arguments, obj=settings, standalone_mode=False, catch_exceptions=False)


def test_this_host_passes(settings: Settings) -> None:
    found = {check.name: check for check in examine(settings)}
    assert [check for check in found.values() if check.level is Level.FAIL] == []
    assert {
        "kernel",
        "clone3",
        "seccomp",
        "overlay",
        "user namespaces",
        "bridge",
        "veth",
        "nftables",
        "cgroup2",
        "bounding set",
    } <= set(found)
    assert all(check.remedy for check in found.values() if check.level is not Level.OK)


def test_each_check_is_one_line(settings: Settings) -> None:
    result = _run(settings)
    assert result.return_value == 0
    lines = result.output.splitlines()
    assert len(lines) == len(examine(settings))
    assert all(line.startswith(("ok ", "warn", "fail")) for line in lines)


def test_json_has_the_same_checks(settings: Settings) -> None:
    answer = json.loads(_run(settings, "-o", "json").output)
    assert [check["name"] for check in answer["checks"]] == [check.name for check in examine(settings)]
    assert set(answer["checks"][0]) == {"name", "level", "detail", "remedy"}


def test_a_subnet_in_use_fails_and_the_exit_status_says_so(settings: Settings) -> None:
    taken = settings.subnet.replace(".0.0/16", ".7.1/24")
    subprocess.run(["ip", "addr", "add", taken, "dev", "lo"], check=True)
    result = _run(settings)
    subprocess.run(["ip", "addr", "del", taken, "dev", "lo"], check=True)
    assert result.return_value == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("fail")]
    assert settings.subnet in line


def test_another_firewall_that_drops_forwarded_packets_is_named(settings: Settings) -> None:
    chain = "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"
    subprocess.run(["nft", f"add table ip filter; {chain}"], check=True)
    found = [check for check in examine(settings) if check.name == "other firewall"]
    subprocess.run(["nft", "delete table ip filter"], check=True)
    assert [check.detail for check in found] == ['chain "FORWARD" of table "ip filter" drops what is forwarded']


def test_a_failing_trial_is_a_finding_and_no_traceback(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(trials, "overlay", refused)
    (found,) = [check for check in examine(settings) if check.name == "overlay"]
    assert found.level is Level.FAIL
    assert "modprobe overlay" in found.remedy


def test_a_root_whose_filesystem_maps_no_ids_is_warned_of(settings: Settings) -> None:
    (found,) = [check for check in examine(settings.replace(root=Path("/proc/sys"))) if check.name == "user namespaces"]
    assert found.level is Level.WARN
    assert "'/proc/sys' cannot be mapped" in found.detail
    assert "ext4" in found.remedy


def test_a_host_without_cgroup2_is_told_how_to_get_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernel.errors import HostError

    def missing() -> None:
        raise HostError("no cgroup2 file system is mounted", remedy="boot with systemd.unified_cgroup_hierarchy=1")

    monkeypatch.setattr(checks, "find", missing)
    (found,) = [check for check in examine(settings) if check.name == "cgroup2"]
    assert found.level is Level.FAIL
    assert found.remedy == "boot with systemd.unified_cgroup_hierarchy=1"


def test_without_root_it_says_so_and_tries_nothing() -> None:
    # Everything is imported before, since the checkout may lie where only root can read.
    code = (
        "import os, sys, runtime.doctor, runtime.cli.doctor; from runtime.cli.main import main;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.argv[1:] = ['doctor', '-o', 'json']; main()"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True)
    assert answer.returncode == 1, answer.stderr
    found = {check["name"]: check for check in json.loads(answer.stdout)["checks"]}
    assert found["root"]["level"] == "fail"
    assert "sudo" in found["root"]["remedy"]
    assert "bridge" not in found


def test_leaks_of_a_clean_instance(settings: Settings) -> None:
    result = _run(settings, "--leaks")
    assert (result.return_value, result.output) == (0, "clean: nothing is left behind\n")


def test_leaks_are_listed_and_the_exit_status_says_so(settings: Settings) -> None:
    left = settings.overlay / "0b0b0b0b-1111-2222-3333-444444444444"
    left.mkdir(parents=True)
    text, data = _run(settings, "--leaks"), _run(settings, "--leaks", "-o", "json")
    left.rmdir()
    line = f"left behind: overlay directory {left} of pod {left.name}"
    assert (text.return_value, text.output) == (1, f"{line}\n")
    assert (data.return_value, json.loads(data.output)) == (1, {"leaks": [line]})
