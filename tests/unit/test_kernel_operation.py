from dataclasses import dataclass

import pytest

from kernel.errors import ContainerError
from kernel.operation import Assembly, Operation, run

LOG: list[str] = []


@dataclass(frozen=True)
class Step(Operation):
    name: str
    fails: bool = False
    undo_fails: bool = False

    def describe(self):
        return self.name

    def execute(self, assembly):
        LOG.append(f"do {self.name}")
        if self.fails:
            raise ContainerError(self.name)

    def undo(self, assembly):
        LOG.append(f"undo {self.name}")
        if self.undo_fails:
            raise OSError(16, "busy")


@pytest.fixture(autouse=True)
def _fresh_log():
    LOG.clear()


def test_a_failing_step_is_undone_with_those_before_it_in_reverse():
    with pytest.raises(ContainerError, match="c"):
        run([Step("a"), Step("b"), Step("c", fails=True), Step("d")], Assembly())
    assert LOG == ["do a", "do b", "do c", "undo c", "undo b", "undo a"]


def test_one_failing_undo_does_not_stop_the_others():
    done = run([Step("a"), Step("b", undo_fails=True)], Assembly())
    failures = done.undo()
    assert LOG[2:] == ["undo b", "undo a"]
    assert [failure.errno for failure in failures] == [16]


def test_what_is_disarmed_stands():
    done = run([Step("a")], Assembly())
    done.disarm()
    assert done.undo() == []
    assert LOG == ["do a"]
