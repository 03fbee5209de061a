"""Quantities, names and the objects' own behaviour."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import BadInput
from runtime.pod import defaults, environment, names, objects, quantities
from runtime.pod.environment import MissingReference, Sources


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0.5", Decimal("0.5")),
        ("500m", Decimal("0.5")),
        ("64Mi", 64 * 2**20),
        ("64M", 64_000_000),
        ("1.5Gi", 3 * 2**29),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        (".5", Decimal("0.5")),
        ("5.", 5),
        ("+1k", 1000),
    ],
)
def test_quantities_have_kubernetes_values(text: str, value: object) -> None:
    assert quantities.parse(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "1x", "1 Mi", "1e999", "nan", ".nan", "inf", "1mm", "१", "1_0", "9" * 100, "1Mib", "--1"]
)
def test_what_is_no_quantity_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(BadInput, match=r"64Mi|one of"):
        quantities.parse(text)


@pytest.mark.parametrize("text", ["0", "-1", "10001", "1e9"])
def test_absurd_cpus_are_refused_with_the_range(text: str) -> None:
    with pytest.raises(BadInput, match="out of range"):
        quantities.cpu_millicores(text)


@pytest.mark.parametrize("text", ["0", "-1", "1e30", "8Ei", "64m"])
def test_absurd_amounts_of_memory_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"out of range|thousandths"):
        quantities.memory_bytes(text)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_quantity_or_bad_input(text: str) -> None:
    for read in (quantities.parse, quantities.cpu_millicores, quantities.memory_bytes):
        try:
            read(text)
        except BadInput as error:
            assert "\n" not in str(error)


@settings(deadline=None)
@given(st.integers(1, 2**62))
def test_sizes_are_shown_as_they_are_read(size: int) -> None:
    assert quantities.memory_bytes(quantities.show_bytes(size)) == size


@settings(deadline=None)
@given(st.integers(1, 10_000_000))
def test_quota_never_falls_below_the_kernels_minimum(millicores: int) -> None:
    assert quantities.cpu_quota_us(millicores) >= 1000
    assert 2 <= quantities.cpu_shares(millicores) <= 262_144


def test_half_a_cpu_is_half_a_period() -> None:
    assert quantities.cpu_quota_us(500) == 50_000
    assert quantities.cpu_shares(500) == 512


@pytest.mark.parametrize("name", ["../x", "a\0", "a\n", "A", "a_b", "-a", "a-", "a..b", "", "a" * 254])
def test_names_of_objects_follow_their_grammar(name: str) -> None:
    assert names.subdomain("web-1.example") is None
    assert names.subdomain(name) is not None


def test_sysctls_are_safe_in_both_spellings_only() -> None:
    assert names.sysctl("net/ipv4/tcp_syncookies") is None
    for unsafe in ("kernel.core_pattern", "net.ipv4.tcp_syncookies+kernel.core_pattern", "net.ipv4.ip_forward", ""):
        assert "net.ipv4.tcp_syncookies" in (names.sysctl(unsafe) or "")
    assert names.sysctl_value("1024 65000") is None
    assert all(names.sysctl_value(text) for text in ("1+kernel.x=2", "|/bin/sh", "1\n2", "", "0\0"))


def test_kind_and_version_are_always_written() -> None:
    for (version, kind), made in objects.KINDS.items():
        written = json.loads(objects.dump(made()))
        assert (written["apiVersion"], written["kind"]) == (version, kind)


def test_false_and_zero_are_written_where_a_reader_needs_them() -> None:
    status = objects.ContainerStatus(name="a", ready=False, restart_count=0, image="host", image_id="")
    assert json.loads(objects.dump(status)) == {
        "name": "a",
        "ready": False,
        "restartCount": 0,
        "image": "host",
        "imageID": "",
    }


def test_stored_objects_with_unknown_fields_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"spec": {"conteners": []}}', type=objects.Pod)


def test_a_secrets_values_are_not_in_its_representation() -> None:
    secret = objects.Secret(data={"password": "aHVudGVyMg=="}, string_data={"other": "hunter2"})
    assert "hunter2" not in repr(secret) and "aHVudGVyMg" not in repr(secret)


def test_defaults_fill_in_what_was_left_out_and_nothing_twice() -> None:
    deployment = objects.Deployment()
    deployment.spec.template.spec.containers = [objects.Container(ports=[objects.ContainerPort(container_port=80)])]
    once = objects.dump(defaults.apply(deployment))
    assert objects.dump(defaults.apply(deployment)) == once
    assert deployment.spec.replicas == 1
    assert deployment.spec.strategy == objects.DeploymentStrategy(type="Recreate")
    assert deployment.spec.template.spec.restart_policy == "Always"
    assert deployment.spec.template.spec.containers[0].ports[0].protocol == "TCP"


def test_written_data_of_a_secret_is_merged_over_its_data() -> None:
    secret = objects.Secret(data={"a": "b2xk", "b": "b2xk"}, string_data={"a": "new"})
    defaults.apply(secret)
    assert (secret.data, secret.string_data) == ({"a": "bmV3", "b": "b2xk"}, {})


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "one"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("$A", "$A"),
        ("$", "$"),
        ("$(", "$("),
        ("x$(A)$(A)y", "xoneoney"),
        ("$(C)", "$(A)"),
    ],
)
def test_references_are_expanded_in_a_single_pass(text: str, expanded: str) -> None:
    assert environment.expand(text, {"A": "one", "C": "$(A)"}) == expanded


def test_variables_that_double_each_other_are_bounded() -> None:
    variables = [objects.EnvVar("V0", "x" * 1000)]
    variables += [objects.EnvVar(f"V{n}", f"$(V{n - 1})$(V{n - 1})") for n in range(1, 64)]
    container = objects.Container(env=variables)
    with pytest.raises(BadInput, match="expands to more than"):
        environment.resolve(objects.Pod(), container, Sources())


def test_a_cycle_of_variables_ends() -> None:
    container = objects.Container(env=[objects.EnvVar("A", "$(B)"), objects.EnvVar("B", "$(A)")])
    assert environment.resolve(objects.Pod(), container, Sources()) == {"A": "$(B)", "B": "$(B)"}


def test_values_come_from_config_maps_secrets_and_the_pod() -> None:
    pod = objects.Pod(metadata=objects.ObjectMeta(name="web-1", namespace="default", labels={"app": "web"}))
    source = objects.EnvVarSource
    container = objects.Container(
        env_from=[objects.EnvFromSource(prefix="C_", config_map_ref=objects.SourceSelector("settings"))],
        env=[
            objects.EnvVar("PASSWORD", value_from=source(secret_key_ref=objects.KeySelector("login", "password"))),
            objects.EnvVar("NAME", value_from=source(field_ref=objects.FieldSelector("metadata.name"))),
            objects.EnvVar("IP", value_from=source(field_ref=objects.FieldSelector("status.podIP"))),
            objects.EnvVar("APP", value_from=source(field_ref=objects.FieldSelector("metadata.labels['app']"))),
            objects.EnvVar("GREETING", "$(C_hello) from $(NAME)"),
        ],
    )
    sources = Sources(
        config_maps={"settings": objects.ConfigMap(data={"hello": "hi"})},
        secrets={"login": objects.Secret(data={"password": "aHVudGVyMg=="})},
        address="10.88.0.5",
    )
    assert environment.resolve(pod, container, sources) == {
        "C_hello": "hi",
        "PASSWORD": "hunter2",
        "NAME": "web-1",
        "IP": "10.88.0.5",
        "APP": "web",
        "GREETING": "hi from web-1",
    }


def test_a_missing_source_is_named_unless_it_is_optional() -> None:
    selector = objects.KeySelector("login", "password")
    container = objects.Container(
        env=[objects.EnvVar("PASSWORD", value_from=objects.EnvVarSource(secret_key_ref=selector))]
    )
    with pytest.raises(MissingReference, match="Secret 'login' not found"):
        environment.resolve(objects.Pod(), container, Sources())
    selector.optional = True
    assert environment.resolve(objects.Pod(), container, Sources()) == {}
