"""JSON without the json package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import jsontext

HOME = Path(__file__).parents[2]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_written_is_read_back(value):
    assert jsontext.loads(jsontext.dumps(value)) == value == json.loads(jsontext.dumps(value))


@given(st.text(max_size=30))
def test_any_text_is_read_as_the_package_reads_it_or_refused(text):
    try:
        expected = json.loads(text, parse_constant=_refuse)
    except ValueError:
        with pytest.raises(ValueError):
            jsontext.loads(text)
    else:
        assert jsontext.loads(text) == expected


def _refuse(name):
    raise ValueError(name)


@pytest.mark.parametrize("text", ["", "{", "[1,", '{"a" 1}', "nul", "1 2", '"\\x"', "{'a': 1}"])
def test_malformed_text_is_an_error_also_where_nobody_loaded_the_package(text):
    script = (
        f"import sys; sys.path.insert(0, {str(HOME)!r}); from runtime import jsontext\n"
        f"try: jsontext.loads({text!r})\nexcept ValueError: print('refused')"
    )
    printed = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed == "refused\n"
