import pytest

from kernel import errors
from kernel.errors import RawpodError, SystemCallError


def test_a_failed_call_says_what_was_asked_and_why_it_was_refused():
    error = SystemCallError("umount2", {"target": b"/mnt", "flags": 2}, 16, remedy="end what uses it")
    assert str(error) == "umount2(target='/mnt', flags=2): device or resource busy (end what uses it)"


def test_long_values_are_cut():
    assert len(str(SystemCallError("mount", {"data": "x" * 5000}, 22))) < 300


@pytest.mark.parametrize(
    ("name", "code"),
    [("BadInput", 2), ("NotSupported", 125), ("CommandNotExecutable", 126), ("CommandNotFound", 127)],
)
def test_errors_know_the_exit_code(name, code):
    assert getattr(errors, name)("x").exit_code == code


def test_every_error_is_in_the_tree_drawn_in_the_docstring():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RawpodError)]
    assert len(kinds) == 11
    for kind in kinds:
        assert f"{kind.__name__} " in errors.__doc__
