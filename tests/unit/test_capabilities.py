"""From the capabilities that are asked for to those that can be had."""

from hypothesis import given
from hypothesis import strategies as st

from kernel.names import CAPABILITIES
from runtime import spec
from runtime.capabilities import ALL, Granted, grant

KILL = 1 << CAPABILITIES["CAP_KILL"]
_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def test_without_a_section_there_are_none() -> None:
    assert grant(None, ALL) == (Granted(), [])


def test_all_five_sets_are_taken_as_they_are_where_they_can_be_had() -> None:
    asked = spec.Capabilities(**{name: ["CAP_KILL"] for name in _SETS})
    assert grant(asked, ALL) == (Granted(**dict.fromkeys(_SETS, KILL)), [])


def test_an_unknown_capability_is_a_warning() -> None:
    granted, warnings = grant(spec.Capabilities(bounding=["CAP_FROM_THE_FUTURE", "CAP_KILL"]), ALL)
    assert granted.bounding == KILL
    assert warnings == ["process.capabilities.bounding: unknown capability 'CAP_FROM_THE_FUTURE' ignored"]


def test_what_the_runtime_does_not_have_itself_is_a_warning() -> None:
    granted, warnings = grant(spec.Capabilities(permitted=["CAP_KILL"], bounding=["CAP_KILL"]), ALL & ~KILL)
    assert granted == Granted()
    assert len(warnings) == 2
    assert all("the runtime's own bounding set lacks it" in warning for warning in warnings)


def test_an_ambient_capability_has_to_be_permitted_and_inheritable() -> None:
    granted, warnings = grant(spec.Capabilities(permitted=["CAP_KILL"], ambient=["CAP_KILL"]), ALL)
    assert granted.ambient == 0
    assert "not both permitted and inheritable" in warnings[0]


@given(st.lists(st.sets(st.sampled_from(sorted(CAPABILITIES))), min_size=5, max_size=5), st.integers(0, ALL))
def test_what_is_granted_is_what_the_kernel_takes_and_each_that_is_not_has_a_warning(asked, available) -> None:
    wanted = spec.Capabilities(**{name: sorted(names) for name, names in zip(_SETS, asked, strict=True)})
    granted, warnings = grant(wanted, available)
    assert granted.effective & ~granted.permitted == 0
    assert granted.ambient & ~(granted.permitted & granted.inheritable) == 0
    assert granted.inheritable & ~granted.bounding == 0
    assert (granted.bounding | granted.permitted) & ~available == 0
    assert len(warnings) == sum(map(len, asked)) - sum(getattr(granted, name).bit_count() for name in _SETS)
