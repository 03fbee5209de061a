"""Image references: Docker's grammar, its defaults, and where an error is."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootfs.images.reference import BadReference, Reference, is_digest, parse

D256 = "sha256:" + "0123456789abcdef" * 4
D512 = "sha512:" + "0123456789abcdef" * 8

# The same grammar a second time, as regular expressions, so that a slip in one of the two shows.
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_DIGEST = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
_GRAMMAR = re.compile(
    rf"(?:(?P<registry>{_REGISTRY})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@(?P<digest>{_DIGEST}))?",
    re.ASCII,
)


def by_regular_expression(text: str) -> Reference | None:
    """What Docker's own way of reading gives: the registry is split off, then all is matched."""
    if re.fullmatch("[a-f0-9]{64}", text):
        return None
    first, slash, rest = text.partition("/")
    if not slash or not (first == "localhost" or re.search(r"[.:]", first) or first.lower() != first):
        first, rest = "docker.io", text
    elif first == "index.docker.io":
        first = "docker.io"
    if first == "docker.io" and "/" not in rest:
        rest = "library/" + rest
    match = _GRAMMAR.fullmatch(f"{first}/{rest}")
    if not match or match["registry"] != first or len(match["path"]) > 255:
        return None
    tag = match["tag"] or (None if match["digest"] else "latest")
    return Reference(first, match["path"], tag, match["digest"])


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
        ("owner/app", "docker.io/owner/app:latest", "owner/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("host:5000/app", "host:5000/app:latest", "host:5000/app:latest"),
        ("host:5000", "docker.io/library/host:5000", "host:5000"),
        ("127.0.0.1/app", "127.0.0.1/app:latest", "127.0.0.1/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        ("ghcr.io/a/b/c:T_1.x-y", "ghcr.io/a/b/c:T_1.x-y", "ghcr.io/a/b/c:T_1.x-y"),
        ("foo_bar.com:8080", "docker.io/library/foo_bar.com:8080", "foo_bar.com:8080"),
        ("foo/foo_bar.com:8080", "docker.io/foo/foo_bar.com:8080", "foo/foo_bar.com:8080"),
        ("a---b__c.d", "docker.io/library/a---b__c.d:latest", "a---b__c.d:latest"),
        (f"nginx@{D256}", f"docker.io/library/nginx@{D256}", f"nginx@{D256}"),
        (f"nginx:1@{D512}", f"docker.io/library/nginx:1@{D512}", f"nginx:1@{D512}"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
        ("docker.io/localhost/c", "docker.io/localhost/c:latest", "docker.io/localhost/c:latest"),
        ("a" * 63 + "g", f"docker.io/library/{'a' * 63}g:latest", "a" * 63 + "g:latest"),
    ],
)
def test_defaults_are_dockers(text: str, canonical: str, familiar: str) -> None:
    reference = parse(text)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("Nginx", 0),
        ("nginX", 4),
        ("owner/App", 6),
        ("nginx:", 6),
        ("nginx:.x", 6),
        ("nginx:a:b", 7),
        ("nginx:a/b", 6),
        ("nginx:1/b/c:d/e", 13),
        ("nginx:" + "t" * 129, 134),
        ("/nginx", 0),
        ("a//b", 2),
        ("a/", 2),
        ("a..b", 2),
        ("a___b", 3),
        ("a-.b", 2),
        ("a._b", 2),
        ("a-", 2),
        ("-a", 0),
        ("a b", 1),
        ("a\n", 1),
        ("a\0b", 1),
        ("ä", 0),
        ("../etc/passwd", 0),
        ("a/../b", 2),
        ("http://host/a", 5),
        ("https://host/a", 6),
        ("a__b.c/d", 1),
        ("-host.io/a", 0),
        ("host-.io/a", 5),
        ("host..io/a", 5),
        ("host.:80/a", 5),
        ("host:/a", 5),
        ("host:8x/a", 6),
        ("[::1/a", 4),
        ("[]/a.b", 0),
        ("[]:5/a", 1),
        ("[::1%eth0]/a", 4),
        ("a" * 247 + "b", 247),
        ("h.io/" + "a" * 256, 260),
        ("f" * 64, 0),
        ("nginx@", 6),
        ("nginx@sha256", 6),
        ("nginx@md5:" + "0" * 32, 6),
        ("nginx@sha256:" + "0" * 63, 76),
        ("nginx@sha256:" + "0" * 65, 77),
        ("nginx@sha256:" + "A" * 64, 13),
        (f"nginx@{D256}:tag", 77),
    ],
)
def test_an_error_is_at_the_first_wrong_character(text: str, position: int) -> None:
    with pytest.raises(BadReference, match=f"character {position + 1}: ") as caught:
        parse(text)
    assert caught.value.position == position
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_an_address_is_told_from_a_reference() -> None:
    with pytest.raises(BadReference, match="http://, https:// and the like are left out"):
        parse("https://ghcr.io/a/b")


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(BadReference) as caught:
        parse("a" * 100_000 + "!")
    assert len(str(caught.value)) < 1000


_texts = st.one_of(
    st.text(alphabet="abzAZ09._-/:@[]", max_size=24),
    st.lists(
        st.sampled_from(
            ["a", "b1", "Z", ".", "_", "__", "-", "/", ":", "@", "localhost", "docker.io", "library", "80", D256, D512]
        ),
        max_size=9,
    ).map("".join),
    st.from_regex(_GRAMMAR, fullmatch=True),
)


@given(_texts)
@example("a" * 255)
@example("docker.io/library/" + "0" * 64)
@example("library/" + "0" * 64)
def test_agrees_with_the_grammar_as_regular_expressions(text: str) -> None:
    try:
        found = parse(text)
    except BadReference as error:
        assert by_regular_expression(text) is None
        assert 0 <= error.position <= len(text)
    else:
        assert found == by_regular_expression(text)


@given(_texts)
def test_what_is_written_is_read_back(text: str) -> None:
    try:
        found = parse(text)
    except BadReference:
        return
    assert parse(found.canonical) == found
    assert parse(found.familiar) == found
    assert found.digest is None or is_digest(found.digest)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except BadReference as error:
        assert 0 <= error.position <= len(text)
