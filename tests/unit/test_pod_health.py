"""What is thought of a container, from what its tests say."""

from __future__ import annotations

import pytest

from kernel.errors import BadInput
from rootfs.images.store import Healthcheck
from runtime.pod.compile import ImageView, resolve_health
from runtime.pod.health import KEPT, Result, Verdict
from runtime.pod.image_config import Health
from runtime.pod.run_options import pod_from_run_options

HEALTH = Health(("/probe",), interval=30, start_period=60, start_interval=5, retries=3)


def result(code: int) -> Result:
    return Result(code, "", "", "")


def test_failures_in_the_start_period_do_not_count_and_the_pause_is_shorter() -> None:
    verdict = Verdict(HEALTH)
    for age in (5, 10, 15, 20, 59):
        verdict.add(result(1), age)
        assert (verdict.status, verdict.failing_streak, verdict.pause(age)) == ("starting", 0, 5)
    assert verdict.pause(61) == 30
    for streak, status in ((1, "starting"), (2, "starting"), (3, "unhealthy"), (4, "unhealthy")):
        verdict.add(result(1), 61)
        assert (verdict.failing_streak, verdict.status) == (streak, status)


def test_a_test_that_passes_ends_the_start_period() -> None:
    verdict = Verdict(HEALTH)
    verdict.add(result(0), 5)
    assert (verdict.status, verdict.pause(5)) == ("healthy", 30)
    for _ in range(3):
        verdict.add(result(2), 10)
    assert (verdict.status, verdict.failing_streak) == ("unhealthy", 3)
    verdict.add(result(0), 10)
    assert (verdict.status, verdict.failing_streak) == ("healthy", 0)


def test_the_last_results_are_kept() -> None:
    verdict = Verdict(HEALTH)
    for code in range(9):
        verdict.add(result(code), 100)
    assert [entry["exitCode"] for entry in verdict.to_json()["log"]] == [4, 5, 6, 7, 8]
    assert len(verdict.results) == KEPT


def test_run_obeys_the_images_health_check_and_pods_do_where_they_say_so() -> None:
    image = ImageView(("/layer",), healthcheck=Healthcheck(("CMD", "/probe"), interval=10**9))
    pod = pod_from_run_options(name="web", image="web")
    assert resolve_health(pod, pod.spec.containers[0], image) == Health(("/probe",), interval=1.0)
    assert resolve_health(pod, pod.spec.containers[0], image.replace(healthcheck=None)) is None
    without = pod_from_run_options(name="web", image="web", healthcheck=False)
    assert resolve_health(without, without.spec.containers[0], image) is None
    with pytest.raises(BadInput, match=r"config\.Healthcheck\.Test"):
        resolve_health(pod, pod.spec.containers[0], image.replace(healthcheck=Healthcheck(("PROBE",))))
