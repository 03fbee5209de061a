"""Changes of an image's configuration, written as in a Dockerfile."""

import pytest

from kernel.errors import BadInput, NotSupported
from rootfs.images.changes import apply, words
from rootfs.images.image import Healthcheck, ImageConfig

PLAIN = ImageConfig(env=("A=1", "B=2"), entrypoint=("/init",), cmd=("x",), labels={"a": "b"})


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ('CMD ["sh", "-c", "a b"]', "cmd", ("sh", "-c", "a b")),
        ("cmd  exec sleep $N", "cmd", ("/bin/sh", "-c", "exec sleep $N")),
        ("ENV B=3 C='x y'", "env", ("A=1", "B=3", "C=x y")),
        ("ENV C x y", "env", ("A=1", "B=2", "C=x y")),
        ("ENV C=", "env", ("A=1", "B=2", "C=")),
        ("EXPOSE 80 53/udp 80/tcp", "exposed_ports", ("80/tcp", "53/udp")),
        ('LABEL c="d e" a=f', "labels", {"a": "f", "c": "d e"}),
        ("STOPSIGNAL SIGQUIT", "stop_signal", "SIGQUIT"),
        ("USER web:34", "user", "web:34"),
        ('VOLUME ["/a", "/b c"]', "volumes", ("/a", "/b c")),
        ("VOLUME /a /b", "volumes", ("/a", "/b")),
        ("WORKDIR /srv", "working_dir", "/srv"),
        ("WORKDIR srv", "working_dir", "/srv"),
        ("HEALTHCHECK NONE", "healthcheck", Healthcheck(("NONE",))),
        (
            "HEALTHCHECK --interval=1m30s --start-period=1.5s --retries=2 CMD curl -f localhost",
            "healthcheck",
            Healthcheck(("CMD-SHELL", "curl -f localhost"), 90 * 10**9, 0, 1_500_000_000, 0, 2),
        ),
        ('HEALTHCHECK CMD ["true"]', "healthcheck", Healthcheck(("CMD", "true"))),
    ],
)
def test_an_instruction_changes_its_field_and_no_other(change: str, field: str, value: object) -> None:
    assert apply(PLAIN, [change]) == PLAIN._replace(**{field: value})


def test_an_entrypoint_takes_the_arguments_of_the_old_one_away() -> None:
    """As in a Dockerfile, whose later CMD gives new ones."""
    assert apply(PLAIN, ['ENTRYPOINT ["/new"]']) == PLAIN._replace(entrypoint=("/new",), cmd=())
    assert apply(PLAIN, ["ENTRYPOINT run", 'CMD ["y"]']).cmd == ("y",)


@pytest.mark.parametrize(
    "change",
    [
        "",
        "RUN true",
        "CMD",
        "CMD [1]",
        'CMD ["a"',
        'CMD ["a\\u0000"]',
        "ENV x",
        "ENV =x",
        "ENV A='",
        "EXPOSE 65536",
        "EXPOSE http",
        "LABEL x",
        "VOLUME data",
        "HEALTHCHECK true",
        "HEALTHCHECK --often=1s CMD true",
        "HEALTHCHECK --interval=1 CMD true",
        "USER a\0b",
    ],
)
def test_what_is_no_instruction_is_refused(change: str) -> None:
    with pytest.raises(BadInput, match="change"):
        apply(PLAIN, [change])


def test_onbuild_is_refused_by_name() -> None:
    with pytest.raises(NotSupported, match="ONBUILD"):
        apply(PLAIN, ["ONBUILD RUN true"])


def test_words_have_a_shells_quotes_or_are_an_array() -> None:
    assert words("a 'b c'") == words('["a", "b c"]') == ("a", "b c")
    with pytest.raises(ValueError, match="array"):
        words("[]x")
