"""`rawpod wait`, `diff` and `apply` against a door."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import BadInput, NotFound, NotSupported
from runtime.cli import apply as apply_command
from runtime.cli import diff as diff_command
from runtime.cli import wait as wait_command
from runtime.cli.jsonpath import compile_path
from runtime.cli.objects import delete
from runtime.pod.faults import Faults
from tests.unit.test_api import MAPS, PODS, Door, config_map, pod
from tests.unit.test_api import door as door  # the fixture

ITEM = {
    "status": {"phase": "Running", "conditions": [{"type": "A", "status": "False"}, {"type": "B", "status": "True"}]},
    "metadata": {"labels": {"app.kubernetes.io/name": "x"}},
    "ok": True,
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("{.status.phase}", ["Running"]),
        (".status.phase", ["Running"]),
        ("status.phase", ["Running"]),
        ("{$.ok}", [True]),
        ("{.metadata.labels.app\\.kubernetes\\.io/name}", ["x"]),
        ("{.metadata.labels['app.kubernetes.io/name']}", ["x"]),
        ("{.status.conditions[-1].type}", ["B"]),
        ("{.status.conditions[2].type}", []),
        ("{.status.conditions[*].type}", ["A", "B"]),
        ('{.status.conditions[?(@.type=="B")].status}', ["True"]),
        ("{.status.conditions[?(@.type!='B')].status}", ["False"]),
        ("{.nothing.here}", []),
    ],
)
def test_jsonpath_picks_values(path: str, values: list[Any]) -> None:
    assert compile_path(path)(ITEM) == values


@pytest.mark.parametrize("path", ["{..phase}", "{.a[1:2]}", "{range .items}", "{.a}{.b}", "", "{.a b}"])
def test_jsonpath_that_is_not_understood_is_refused(path: str) -> None:
    with pytest.raises(NotSupported, match="JSONPath"):
        compile_path(path)


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ("condition=b", True),
        ("condition=A", False),
        ("condition=A=false", True),
        ("jsonpath={.status.phase}=Running", True),
        ("jsonpath='{.status.phase}'=Running".replace("'", ""), True),
        ("jsonpath={.status.phase}=Failed", False),
        ("jsonpath={.ok}=true", True),
        ("jsonpath={.status.phase}", True),
        ("jsonpath={.status.reason}", False),
        ('jsonpath=.status.conditions[?(@.type=="B")].status=True', True),
        ("delete", False),
        ("create", True),
    ],
)
def test_conditions_of_wait(wanted: str, holds: bool) -> None:
    assert wait_command.parse(wanted)(ITEM) is holds


@pytest.mark.parametrize("wanted", ["", "ready", "condition=", "jsonpath", "jsonpath={.a}=", "jsonpath={.a}b"])
def test_a_condition_that_cannot_be_read_is_refused(wanted: str) -> None:
    with pytest.raises(BadInput, match="--for"):
        wait_command.parse(wanted)


def test_what_was_observed_before_the_last_change_is_no_condition() -> None:
    item = {**ITEM, "metadata": {"generation": 2}, "status": {**ITEM["status"], "observedGeneration": 1}}  # type: ignore[dict-item]
    assert not wait_command.parse("condition=B")(item)


def run(door: Door, command: Any, *words: str) -> Any:
    return command.main(list(words), standalone_mode=False, obj=door.settings)


def test_wait_returns_when_the_watch_tells(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    made = door.client.request("POST", PODS, pod())
    waiting = ["pod/p", "--for=condition=Ready", "--timeout=60s"]
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run(door, wait_command.wait, *waiting)))
    thread.start()
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    door.client.request("PUT", f"{PODS}/p/status", {"metadata": {"name": made["metadata"]["name"]}, "status": status})
    thread.join()
    assert codes == [0]
    assert capsys.readouterr().out == "pod/p condition met\n"


def test_wait_for_deletion_ends_with_it_and_at_once_if_there_is_nothing(door: Door) -> None:
    door.client.request("POST", MAPS, config_map())
    codes: list[int] = []
    thread = threading.Thread(
        target=lambda: codes.append(run(door, wait_command.wait, "cm/a", "--for=delete", "--timeout=60s"))
    )
    thread.start()
    door.client.request("DELETE", f"{MAPS}/a")
    thread.join()
    assert codes == [0]
    assert run(door, wait_command.wait, "cm/a", "--for=delete") == 0
    with pytest.raises(NotFound, match='configmaps "a" not found'):
        run(door, wait_command.wait, "cm/a", "--for=condition=x")


def test_wait_that_is_not_met_in_time_is_1(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    door.client.request("POST", PODS, pod())
    for timeout in ("0", "50ms"):
        assert run(door, wait_command.wait, "pods", "--all", "--for=condition=Ready", f"--timeout={timeout}") == 1
        assert "timed out waiting for the condition on pod/p" in capsys.readouterr().err


Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> str:
        path = tmp_path / "m.yaml"
        path.write_text(text)
        return str(path)

    return write


MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {key: %s}\n"
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {key: %s}\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: %s}]}\n"


def test_diff_shows_what_apply_would_change_and_changes_nothing(
    door: Door, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(MAP % "one")
    assert run(door, diff_command.diff, "-f", file) == 1
    assert "+++ merged/v1.ConfigMap.default.a" in capsys.readouterr().out
    run(door, apply_command.apply, "-f", file)
    assert run(door, diff_command.diff, "-f", file) == 0
    assert capsys.readouterr().out == "configmap/a created\n"
    write(MAP % "two")
    assert run(door, diff_command.diff, "-f", file) == 1
    shown = capsys.readouterr().out.splitlines()
    assert "-  key: one" in shown and "+  key: two" in shown
    assert not any("resourceVersion" in line or "last-applied" in line for line in shown)
    assert door.client.request("GET", f"{MAPS}/a")["data"] == {"key": "one"}


def test_diff_keeps_a_secrets_values_to_itself(door: Door, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when _mask is taken out of _compare."""
    file = write(SECRET % "one")
    run(door, apply_command.apply, "-f", file)
    write(SECRET % "two")
    assert run(door, diff_command.diff, "-f", file) == 1
    shown = capsys.readouterr().out
    assert "*** (before)" in shown and "*** (after)" in shown
    assert "b25l" not in shown and "dHdv" not in shown


def test_a_pods_image_may_not_change_and_the_manifests_line_is_told(door: Door, write: Write) -> None:
    file = write(POD % "host")
    run(door, apply_command.apply, "-f", file)
    write(POD % "other")
    for command in (apply_command.apply, diff_command.diff):
        with pytest.raises(Faults, match=r"m\.yaml:3: .*Forbidden: pod updates may not change.*containers\[0\]\.image"):
            run(door, command, "-f", file)


def test_dry_runs_of_apply(door: Door, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(MAP % "one")
    run(door, apply_command.apply, "--dry-run", "-f", file)
    run(door, apply_command.apply, "--dry-run=server", "-f", file)
    run(door, apply_command.apply, "--dry-run=client", "-f", file)
    dry = "configmap/a created (dry run)\n"
    assert capsys.readouterr().out == f"{dry}{dry}configmap/a is valid (client dry run)\n"
    assert door.client.request("GET", MAPS)["items"] == []


def test_delete_by_field_selector(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        door.client.request("POST", MAPS, config_map(name))
    run(door, delete, "cm", "--field-selector", "metadata.name!=a")
    assert capsys.readouterr().out == "configmap/b deleted\n"
