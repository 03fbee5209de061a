"""Options of the OCI command line, as runc's and crun's callers spell them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from runtime.oci.kill import number
from runtime.oci.options import Option, parse

OPTIONS = (
    Option("--bundle -b", "DIR"),
    Option("--detach -d"),
    Option("--env -e", "K=V", many=True),
    Option("--preserve-fds", "N"),
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bundle", "/b", "-d", "c"],
        ["--bundle=/b", "--detach=true", "c"],
        ["-b", "/b", "--detach", "c"],
        ["-bundle", "/b", "-detach", "c"],
        ["c", "--bundle", "/b", "-d"],
        ["-b/b", "-d", "--", "c"],
    ],
)
def test_all_spellings_mean_the_same(arguments):
    parsed = parse(OPTIONS, arguments, in_order=False)
    assert (parsed.text("--bundle"), parsed.flag("--detach"), parsed.words) == ("/b", True, ["c"])


def test_in_order_the_first_word_ends_the_options():
    parsed = parse(OPTIONS, ["-e", "A=1", "-e", "B=2", "c", "ls", "-d"], in_order=True)
    assert (parsed.many("--env"), parsed.words, parsed.flag("--detach")) == (["A=1", "B=2"], ["c", "ls", "-d"], False)


def test_a_flag_can_be_taken_back():
    assert not parse(OPTIONS, ["-d", "--detach=false"], in_order=False).flag("--detach")


@pytest.mark.parametrize("arguments", [["--nope"], ["--bundle"], ["--detach=maybe"], ["-x"]])
def test_what_is_no_option_is_refused(arguments):
    with pytest.raises(BadInput):
        parse(OPTIONS, arguments, in_order=False)


@pytest.mark.parametrize("text", ["x", "", "1_0", " 1", "-0", "-00", "1.0", "٣"])
def test_a_number_that_is_none_is_refused_by_the_options_name(text):
    with pytest.raises(BadInput, match="--preserve-fds"):
        parse(OPTIONS, ["--preserve-fds", text], in_order=False).number("--preserve-fds")


@given(st.lists(st.text(max_size=8), max_size=6), st.booleans())
def test_any_words_are_parsed_or_refused(arguments, in_order):
    try:
        parse(OPTIONS, arguments, in_order=in_order)
    except BadInput:
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("9", 9), ("KILL", 9), ("SIGKILL", 9), ("term", 15), ("SIGRTMIN+1", 35), ("RTMAX-1", 63)],
)
def test_signals_go_by_number_and_name(text, expected):
    assert number(text) == expected


@pytest.mark.parametrize("text", ["", "65", "-1", "SIG_IGN", "NOPE", "SIGRTMIN+99", "KILL+1", "1.5"])
def test_other_words_are_no_signals(text):
    with pytest.raises(BadInput):
        number(text)
