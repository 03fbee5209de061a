"""What holds for every test: inside the test machine nothing may be skipped."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

IN_TEST_MACHINE = os.environ.get("RAWPOD_VM") == "1"

# A busy machine is no failure. An emulated one is ten times slower, and the same examples were tried outside. By hand
# each run looks further; where a verdict is asked for, it is on the change and not on the seed.
settings.register_profile(
    "rawpod",
    deadline=None,
    max_examples=10 if IN_TEST_MACHINE else 100,
    derandomize=IN_TEST_MACHINE or os.environ.get("CI") == "true",
)
settings.load_profile("rawpod")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --cgroup-layout."""
    parser.addoption(
        "--cgroup-layout",
        choices=("host", "v2"),
        default="host",
        help="for root tests: the machine's cgroup mounts as they are, or the cgroup2 mount alone at /sys/fs/cgroup",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one inside the test machine, which has everything a test can need."""
    report = yield
    # An expected failure is reported as skipped as well, and stays what it is.
    if IN_TEST_MACHINE and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: Any) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself as a whole."""
    report = yield
    if IN_TEST_MACHINE and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} skipped where nothing may be: {report.longrepr}"
    return report
