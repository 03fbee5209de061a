"""Plain data classes: what they take, compare and refuse."""

import subprocess
import sys

import pytest

from kernel.record import Record, Struct


class Point(Record):
    x: int
    y: int = 0


class Named(Point):
    name: str = ""


class Bag(Struct):
    things: list[str] = []


def test_fields_are_the_annotations_those_of_the_parent_first():
    assert list(Named(1, name="a")) == [1, 0, "a"]
    assert repr(Named(1)) == "Named(x=1, y=0, name='')"


def test_records_of_one_class_are_equal_by_value():
    assert Point(1) == Point(1, 0)
    assert hash(Point(1)) == hash(Point(1, 0))
    assert Point(1) != Named(1)
    assert Point(1) != (1, 0)


def test_a_record_is_frozen_and_replaced():
    with pytest.raises(AttributeError, match="frozen"):
        Point(1).x = 2
    assert Point(1).replace(y=3) == Point(1, 3)


def test_each_struct_has_lists_of_its_own():
    first, second = Bag(), Bag()
    first.things.append("x")
    assert second.things == []
    with pytest.raises(TypeError):
        hash(first)


@pytest.mark.parametrize(
    "make", [lambda: Point(), lambda: Point(1, 2, 3), lambda: Point(1, x=1), lambda: Point(1, z=1)]
)
def test_wrong_arguments_are_refused(make):
    with pytest.raises(TypeError):
        make()


def test_nothing_is_imported_for_it():
    code = "import sys; before = set(sys.modules); import kernel.record; print(set(sys.modules) - before)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert eval(printed) <= {"kernel", "kernel.record", "__future__"}
