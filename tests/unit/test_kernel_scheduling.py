import pytest

from kernel.names import parse_list
from kernel.scheduling import bit_words


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", (0,)), ("0-3,7", (0, 1, 2, 3, 7)), ("2, 4-5", (2, 4, 5)), ("8191", (8191,)), ("3-3", (3,))],
)
def test_lists_of_processors_are_read(text, numbers):
    assert parse_list(text) == numbers


@pytest.mark.parametrize("text", ["", ",", "a", "1-", "-1", "3-2", "0-8192", "1-2-3", "0x3", "٣", "1" * 30, "0 1"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ValueError, match="is not a"):
        parse_list(text)


def test_a_mask_has_as_many_words_as_it_needs():
    assert list(bit_words(())) == [0]
    assert list(bit_words((0, 63))) == [1 | 1 << 63]
    assert list(bit_words((1, 64, 130))) == [2, 1, 4]
