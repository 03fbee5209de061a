"""WWW-Authenticate as registries send it, and as they should not; Retry-After; errors in words."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from rootfs.registry.challenge import Challenge, parse_challenges
from rootfs.registry.failures import error_of
from rootfs.registry.timing import Timing, retry_after
from rootfs.registry.transport import _proxy


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        (
            ['Bearer realm="https://a.io/token",service="a.io",scope="repository:a/b:pull,push"'],
            [("bearer", {"realm": "https://a.io/token", "service": "a.io", "scope": "repository:a/b:pull,push"})],
        ),
        (['Basic realm="a b"', "Bearer realm=x"], [("basic", {"realm": "a b"}), ("bearer", {"realm": "x"})]),
        (['Basic realm="a", Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        ([r'BEARER Realm = "q\"\\q" , Scope=s'], [("bearer", {"realm": 'q"\\q', "scope": "s"})]),
        (['Negotiate YWJj==, Basic realm="a"'], [("negotiate", {}), ("basic", {"realm": "a"})]),
        (['Negotiate, Basic realm="a"'], [("negotiate", {}), ("basic", {"realm": "a"})]),
        (["Basic"], [("basic", {})]),
        ([""], []),
        (['Bearer realm="open'], [("bearer", {})]),
        (['Bearer realm="one",realm="two"'], [("bearer", {"realm": "one"})]),
    ],
)
def test_challenges_are_read(headers: list[str], challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(headers) == [Challenge(*challenge) for challenge in challenges]


@given(st.lists(st.text(alphabet='Bearlm="\\, \t=;/é', max_size=40), max_size=3))
def test_any_header_is_read_in_time(headers: list[str]) -> None:
    parse_challenges(headers)


def test_a_hostile_header_takes_no_time() -> None:
    start = time.monotonic()
    for text in ('a="' + "\\a" * 8000, "a=b," * 4000, "Basic " * 3000, "=" * 16000, 'B a="' * 3000):
        parse_challenges([text])
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None), ("", None), ("-1", None)])
def test_retry_after_is_read(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}) == seconds


def test_retry_after_may_be_a_date() -> None:
    wait = retry_after({"Retry-After": formatdate(time.time() + 100, usegmt=True)})
    assert wait is not None
    assert 90 < wait <= 100
    assert retry_after({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0.0


@given(st.integers(min_value=1, max_value=60))
def test_waits_grow_and_end(failures: int) -> None:
    delay = Timing(base=0.25, longest=15).delay(failures)
    whole = min(15.0, 0.25 * 2 ** (failures - 1))
    assert whole / 2 <= delay <= whole


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"errors": [{"code": "DENIED", "message": "no"}]}', ("DENIED", "no")),
        (b'{"errors": [{"code": "DENIED", "message": "a\\nb\\u001b[2J"}]}', ("DENIED", "a?b?[2J")),
        (b'{"errors": [{"message": 3}]}', ("", "")),
        (b'{"errors": []}', ("", "")),
        (b"[]", ("", "")),
        (b"<html>", ("", "")),
        (b"[" * 100_000, ("", "")),
        (b"\xff", ("", "")),
    ],
)
def test_errors_of_registries_are_read(body: bytes, found: tuple[str, str]) -> None:
    assert error_of(body) == found


def test_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://other.example:3128")
    monkeypatch.setenv("no_proxy", "localhost,.internal,127.0.0.1")
    found = {
        url: _proxy(URL(url))
        for url in ("https://r.io/", "http://r.io/", "https://a.internal:5000/", "http://127.0.0.1:5/")
    }
    assert list(found.values()) == ["http://proxy.example:3128", "http://other.example:3128", None, None]


def test_a_long_message_is_cut() -> None:
    code, message = error_of(b'{"errors": [{"code": "C", "message": "%s"}]}' % (b"m" * 10_000))
    assert (code, len(message)) == ("C", 200)
