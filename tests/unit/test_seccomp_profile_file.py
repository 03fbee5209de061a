"""Profiles in files, in the runtime-spec's form and in Docker's. Corpus row 46: an unclear one never means none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from runtime.seccomp.profile_file import parse

ALLOW = "SCMP_ACT_ALLOW"


def read(document, capabilities=(), machine="x86_64", release="6.1.0-1-amd64"):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse(data, "seccomp profile 'x.json'", capabilities, machine, release)


def profile(*groups, **more):
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(groups), **more}


def group(*names, **more):
    return {"names": list(names), "action": ALLOW, **more}


def names(*groups, **host):
    return [name for entry in read(profile(*groups), **host).syscalls for name in entry.names]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{}", "missing required field `defaultAction`"),
        (b"[]", "expected `object`"),
        (b"null", "expected `object`"),
        (b'{"defaultAction": "SCMP_ACT_ERRNO"', "x.json"),
        (b"\xff\xfe", "x.json"),
        (b"[" * 100000, "x.json"),
        (b'{"defaultAction": "", "syscalls": []}', "unknown action ''"),
        (b'{"defaultAction": "SCMP_ACT_ERRNO", "syscall": []}', "unknown property 'syscall'"),
        (b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}', "field `names`"),
        (b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [null]}', "expected `object`"),
    ],
)
def test_a_profile_that_is_empty_or_malformed_is_an_error_that_names_it(data, message):
    with pytest.raises(BadInput, match=r"seccomp profile 'x\.json': ") as caught:
        read(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (group("a", action="ALLOW"), "unknown action 'ALLOW'"),
        (group("a", include={}), "unknown property 'include'"),
        (group("a", includes={"capabilities": []}), "unknown property 'capabilities'"),
        (group("a", excludes={"caps": "CAP_SYS_ADMIN"}), "expected `array`"),
        (group("a", includes={"caps": [1]}), "expected `str`"),
        (group("a", includes={"minKernel": "six"}), "'six' is no version"),
        (group("a", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ", "mask": 1}]), "unknown property 'mask'"),
        (group("a", name="b"), "name and names"),
        (group("a", action="SCMP_ACT_ERRNO", errno="EFOO"), "unknown errno 'EFOO'"),
        (group("a", action="SCMP_ACT_ERRNO", errno="EPERM", errnoRet=2), "errno 'EPERM' is not errnoRet 2"),
    ],
)
def test_a_rule_that_is_not_understood_is_refused(changed, message):
    with pytest.raises(BadInput) as caught:
        read(profile(changed))
    assert message in str(caught.value)


def test_rules_are_included_by_capabilities_architecture_and_kernel():
    rules = (
        group("always"),
        group("admin", includes={"caps": ["CAP_SYS_ADMIN"]}),
        group("both", includes={"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}),
        group("nobody", excludes={"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}),
        group("intel", includes={"arches": ["amd64", "x32"]}),
        group("not_arm", excludes={"arches": ["arm64"]}),
        group("new", includes={"minKernel": "6.2"}),
        group("old", excludes={"minKernel": "6.2"}),
    )
    assert names(*rules) == ["always", "nobody", "intel", "not_arm", "old"]
    assert names(*rules, capabilities=["CAP_SYS_ADMIN"]) == ["always", "admin", "intel", "not_arm", "old"]
    assert names(*rules, machine="aarch64", release="6.12.3") == ["always", "nobody", "new"]


def test_dockers_and_podmans_words_are_understood():
    read_back = read(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrno": "ENOSYS",
            "defaultErrnoRet": 38,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"name": "clone3", "action": "SCMP_ACT_ERRNO", "errno": "EPERM", "comment": "why", "args": None}
            ],
        }
    )
    assert read_back.default_errno_ret == 38
    assert read_back.architectures == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert (read_back.syscalls[0].names, read_back.syscalls[0].errno_ret) == (["clone3"], 1)
    with pytest.raises(BadInput, match="architectures and archMap are both given"):
        read(profile(architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "SCMP_ARCH_X86_64"}]))


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WORDS = (
    "defaultAction",
    "architectures",
    "archMap",
    "flags",
    "syscalls",
    "listenerPath",
    "defaultErrnoRet",
    "defaultErrno",
)


@given(
    st.dictionaries(
        st.sampled_from(WORDS),
        trees
        | st.lists(
            st.dictionaries(
                st.sampled_from(
                    ("names", "name", "action", "args", "includes", "excludes", "errno", "errnoRet", "architecture")
                ),
                trees,
            )
        ),
        max_size=5,
    )
)
def test_any_tree_is_a_profile_or_bad_input(document):
    try:
        read({"defaultAction": "SCMP_ACT_ERRNO"} | document)
    except BadInput:
        pass
