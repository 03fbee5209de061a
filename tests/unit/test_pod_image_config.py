"""What an image's configuration says, and which of it is refused with the field named."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import BadInput
from runtime import spec
from runtime.checks.config import check
from runtime.pod import image_config, signals
from runtime.pod.compile import ImageView, compile_container, image_volumes, resolve_stop_signal
from runtime.pod.image_config import Health
from runtime.pod.run_options import pod_from_run_options
from tests.unit.test_pod_compile import SURROUNDINGS

IMAGE = ImageView(("/layer",), entrypoint=("/entry",), cmd=("serve", "--all"), stop_signal="SIGQUIT")


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigint", 2), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)],
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert signals.signal_number(text) == number
    assert image_config.stop_signal(text, "web") == number


@pytest.mark.parametrize("text", ["0", "65", "-1", "SIG", "NOPE", "RTMIN+31", "RTMIN-1", "SIG_IGN", "9999999999", "٩"])
def test_a_stop_signal_that_is_none_names_the_field(text: str) -> None:
    with pytest.raises(BadInput, match=r"'web': config\.StopSignal: unknown signal"):
        image_config.stop_signal(text, "web")


def test_the_option_goes_before_the_images_stop_signal() -> None:
    for option, number in ((None, signal.SIGQUIT), ("USR1", signal.SIGUSR1)):
        pod = pod_from_run_options(name="web", image="web", stop_signal=option)
        assert resolve_stop_signal(pod, pod.spec.containers[0], IMAGE) == number
    with pytest.raises(BadInput, match="--stop-signal: unknown signal 'NOPE'"):
        pod_from_run_options(name="web", image="web", stop_signal="NOPE")


@pytest.mark.parametrize(
    ("entrypoint", "command", "args"),
    [
        (None, (), ["/entry", "serve", "--all"]),
        (None, ("once",), ["/entry", "once"]),
        ("/other", (), ["/other"]),
        ("/other", ("$x",), ["/other", "$x"]),
        ("", ("sh", "-c", "true"), ["sh", "-c", "true"]),
    ],
)
def test_dockers_rules_for_entrypoint_and_command(
    entrypoint: str | None, command: tuple[str, ...], args: list[str]
) -> None:
    pod = pod_from_run_options(name="web", image="web", entrypoint=entrypoint, command=command)
    config = compile_container(pod, pod.spec.containers[0], image=IMAGE, surroundings=SURROUNDINGS, env={})
    assert config.process is not None
    assert config.process.args == args


def test_no_entrypoint_and_no_command_is_nothing_to_run() -> None:
    with pytest.raises(BadInput, match="--entrypoint: '' leaves nothing to run"):
        pod_from_run_options(name="web", image="web", entrypoint="")


def test_an_empty_entrypoint_in_an_image_is_none() -> None:
    pod = pod_from_run_options(name="web", image="web")
    image = IMAGE.replace(entrypoint=("",))
    config = compile_container(pod, pod.spec.containers[0], image=image, surroundings=SURROUNDINGS, env={})
    assert config.process is not None
    assert config.process.args == ["serve", "--all"]


def test_volumes_stay_inside_by_text_already() -> None:
    found = image_config.volumes(["/data", "data/", "/a/../../../b", "//c"], "web")
    assert found == ("/data", "/b", "/c")


@pytest.mark.parametrize(
    "path", ["", "/", "/..", "/proc", "/proc/self", "/sys/fs", "/dev", "/x/../dev/shm", "/a\nb", "/a\0"]
)
def test_volumes_that_cannot_be_are_refused(path: str) -> None:
    with pytest.raises(BadInput, match=r"'web': config\.Volumes: "):
        image_config.volumes(["/data", path], "web")


def test_healthchecks_have_dockers_defaults() -> None:
    assert image_config.health(["CMD-SHELL", "true || exit 1"], "web") == Health(("/bin/sh", "-c", "true || exit 1"))
    given = image_config.health(["CMD", "/probe", "x"], "web", interval=5 * 10**8, timeout=10**9, retries=1)
    assert given == Health(("/probe", "x"), interval=0.5, timeout=1.0, retries=1)
    assert image_config.health(["NONE"], "web") is None
    assert image_config.health([], "web") is None


@pytest.mark.parametrize(
    ("test", "times", "field"),
    [
        (["CMD"], {}, "Test"),
        (["CMD-SHELL", "a", "b"], {}, "Test"),
        (["/probe"], {}, "Test"),
        (["CMD", "a\0"], {}, "Test"),
        (["CMD", "/probe"], {"interval": -1}, "Interval"),
        (["CMD", "/probe"], {"timeout": 1000}, "Timeout"),
        (["CMD", "/probe"], {"retries": -1}, "Retries"),
    ],
)
def test_a_malformed_healthcheck_names_the_field(test: list[str], times: dict[str, int], field: str) -> None:
    with pytest.raises(BadInput, match=rf"'web': config\.Healthcheck\.{field}: "):
        image_config.health(test, "web", **times)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("8080:80", ("", 8080, 80, "TCP")),
        ("127.0.0.1:53:5353/udp", ("127.0.0.1", 53, 5353, "UDP")),
    ],
)
def test_ports_are_published_as_docker_writes_them(text: str, port: tuple[str, int, int, str]) -> None:
    (found,) = pod_from_run_options(name="web", image="web", ports=[text]).spec.containers[0].ports
    assert (found.host_ip, found.host_port, found.container_port, found.protocol) == port


NO_PORTS = [
    "",
    ":",
    ":80",
    "80:",
    "0:80",
    "80:65536",
    "a:80",
    "80:80/sctp",
    ":80:80",
    "x:80:80",
    "1:2:3:4",
    "80-90:80",
    "٨:80",
    "80",
]


@pytest.mark.parametrize("text", NO_PORTS)
def test_what_is_no_port_is_refused_by_the_options_name(text: str) -> None:
    with pytest.raises(BadInput, match="--publish: "):
        pod_from_run_options(name="web", image="web", ports=[text])


def test_a_container_without_a_network_of_its_own_publishes_nothing() -> None:
    for network in ("host", "none"):
        with pytest.raises(BadInput, match=f"--publish: a container with --network {network}"):
            pod_from_run_options(name="web", image="web", ports=["80:80"], network=network)


def words(prefix: str) -> st.SearchStrategy[tuple[str, ...]]:
    """A few texts, most of them of the right form at their beginning."""
    return st.lists(st.text(max_size=8) | st.text(max_size=8).map(prefix.__add__), max_size=3).map(tuple)


def word(*right: str) -> st.SearchStrategy[str]:
    return st.sampled_from(right) | st.text(max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "env": words("NAME="),
            "entrypoint": words("/bin/"),
            "cmd": words("arg"),
            "volumes": words("/data/"),
            "user": word("", "0", "1000:1000"),
            "working_dir": word("", "/srv"),
            "stop_signal": word("", "TERM"),
        }
    )
)
def test_any_configuration_is_obeyed_or_refused(fields: dict[str, Any]) -> None:
    """Images are written by strangers: what is in one ends in a description that can be carried out, or BadInput."""
    image = ImageView(("/layer",), **fields)
    pod = pod_from_run_options(name="web", image="web")
    container = pod.spec.containers[0]
    try:
        resolve_stop_signal(pod, container, image)
        places = dict.fromkeys(image_volumes(container, image), "/place")
        around = SURROUNDINGS.replace(image_volumes=places)
        config = compile_container(pod, container, image=image, surroundings=around, env={})
    except BadInput:
        return
    check(config)
    assert spec.load(spec.dump(config)) == config
