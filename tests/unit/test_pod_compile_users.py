"""Who a container runs as: numbers are never taken for names, nor names for numbers, and nothing overflows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.names import MAX_ID
from runtime.pod.users import Accounts, parse, resolve

ACCOUNTS = Accounts(
    passwd=b"root:x:0:0::/root:/bin/sh\n1000:x:0:0:digits:/root:/bin/sh\napp:x:1000:1000::/app:/bin/sh\n",
    group=b"app:x:1000:\nextra:x:50:app,other\nmore:x:60:app\nother:x:70:other\n",
)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("0", (0, None)),
        ("1", (1, None)),
        ("4294967294", (MAX_ID, None)),
        ("www-data", ("www-data", None)),
        ("1:2", (1, 2)),
        ("app:50", ("app", 50)),
        ("_x$", ("_x$", None)),
    ],
)
def test_ids_and_names_are_told_apart(text: str, parsed: object) -> None:
    assert parse(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *("-1", "+1", "4294967295", "4294967296", "18446744073709551617", "1e3", "0x0", " 1", "1 ", "1\n", "1a"),
        *("a\nb", "a:", ":1", "a:b:c", "a/b", "..", "a\0", "١", "a" * 300),
    ],
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse(text)


@settings(deadline=None)
@given(st.integers())
def test_a_number_is_that_uid_or_refused(number: int) -> None:
    """`-u 1` once became uid 0 in a runtime (CVE-2026-30892), 2^32 in others (CVE-2024-40635)."""
    if 0 <= number <= MAX_ID:
        assert resolve(str(number), ACCOUNTS).uid == number
    else:
        with pytest.raises(BadInput):
            resolve(str(number), ACCOUNTS)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_user_or_bad_input(text: str) -> None:
    try:
        found = resolve(text, ACCOUNTS)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert 0 <= found.uid <= MAX_ID and 0 <= found.gid <= MAX_ID


def test_an_account_named_by_digits_is_not_the_uid() -> None:
    """A number is a uid, even where an account has it for a name (CVE-2016-3697)."""
    found = resolve("1000", ACCOUNTS)
    assert (found.uid, found.gid, found.home) == (1000, 1000, "/app")


def test_the_groups_are_exactly_the_accounts_and_those_asked_for() -> None:
    assert resolve("app", ACCOUNTS).groups == (1000, 50, 60)
    assert resolve("1000", ACCOUNTS, gid=50, extra=(7, 50)).groups == (50, 7, 60)
    assert resolve("app:50", ACCOUNTS).groups == (50,)
    assert resolve("app:other", ACCOUNTS).gid == 70
    assert resolve("12", ACCOUNTS).groups == (0,)


@pytest.mark.parametrize("text", ["nobody", "app:nogroup"])
def test_names_without_account_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is not in the image's /etc/"):
        resolve(text, ACCOUNTS)


@pytest.mark.parametrize(
    "line",
    [
        b"evil:x:4294967296:0::/:/bin/sh",
        b"evil:x:-1:0::/:/bin/sh",
        b"evil:x:0x0:0::/:/bin/sh",
        b"evil:x::0::/:/bin/sh",
        b"evil:x:5:4294967295::/:/bin/sh",
        b"evil:x:5:5::/home\rroot:/bin/sh",
        b"evil:x:5:5::/home\0root:/bin/sh",
        b"evil:x:5:5:/bin/sh",
    ],
)
def test_malformed_accounts_are_refused(line: bytes) -> None:
    """Line breaks in a home end up in the next passwd that is written (CVE-2022-4318)."""
    with pytest.raises(BadInput):
        resolve("evil", Accounts(passwd=line + b"\n"))


@pytest.mark.parametrize(("home", "expected"), [(b"", "/"), (b"relative", "/"), (b"/x", "/x"), (b"/\xff", "/\udcff")])
def test_a_home_is_absolute(home: bytes, expected: str) -> None:
    assert resolve("a", Accounts(passwd=b"a:x:1:1::%s:/bin/sh\n" % home)).home == expected


def test_nobody_at_all_is_root() -> None:
    assert resolve("", Accounts()).uid == 0


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_accounts_are_read_or_refused(passwd: bytes, group: bytes) -> None:
    for text in ("root", "0", "app:app"):
        try:
            resolve(text, Accounts(passwd, group))
        except BadInput:
            pass
