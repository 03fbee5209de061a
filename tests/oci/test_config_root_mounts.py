"""config.md: specification version, root, extensibility and valid values."""

from __future__ import annotations

import os

import pytest

READ_ONLY = "Read-only file system"


@pytest.mark.parametrize("version", ["", "one", "1", "1.0.2 ", "v1.0.2"])
def test_a_version_that_is_not_semver_is_refused(box, version):
    """Specification version: "`ociVersion` MUST be in SemVer v2.0.0 format"."""
    box.config["ociVersion"] = version
    box.refused()


@pytest.mark.parametrize("version", ["1.0.0", "1.0.1", "1.0.2", "1.0.2-dev"])
def test_every_earlier_version_is_accepted(box, version):
    """Specification version: "compatible with all runtimes that support any 1.1 or later release"."""
    box.config["ociVersion"] = version
    assert box.shell("echo ran") == "ran\n"


def test_a_configuration_without_root_is_refused(box):
    """Root: "On all other platforms, this field is REQUIRED"."""
    del box.config["root"]
    box.refused()


@pytest.mark.parametrize("kind", ["nothing", "file"])
def test_the_root_must_be_a_directory(box, kind):
    """Root: "A directory MUST exist at the path declared by the field"."""
    box.config["root"]["path"] = "other"
    if kind == "file":
        (box.directory / "other").write_text("")
    box.refused()


@pytest.mark.parametrize("form", ["relative", "absolute"])
def test_the_roots_path_is_absolute_or_relative_to_the_bundle(box, form):
    """Root: "`path` is either an absolute path or a relative path to the bundle"."""
    (box.rootfs / "mark").write_text("here")
    box.config["root"]["path"] = "rootfs" if form == "relative" else os.fspath(box.rootfs)
    assert box.run("cat", "/mark", cwd=box.directory.parent).ok().out == "here"


def test_a_readonly_root_is_read_only(box):
    """Root: "If true then the root filesystem MUST be read-only inside the container"."""
    box.config["root"]["readonly"] = True
    result = box.run("sh", "-c", "touch /new /bin/new")
    assert result.code != 0
    assert result.err.count(READ_ONLY) == 2
    assert not (box.rootfs / "new").exists()


@pytest.mark.parametrize("readonly", [None, False])
def test_the_root_is_writable_unless_said_otherwise(box, readonly):
    """Root: `readonly` "defaults to false"."""
    if readonly is not None:
        box.config["root"]["readonly"] = readonly
    box.shell("echo written > /new")
    assert (box.rootfs / "new").read_text() == "written\n"


def test_a_mount_stays_writable_on_a_readonly_root(box):
    """Root: it is the root filesystem that is read-only, not what is mounted on it."""
    box.config["root"]["readonly"] = True
    box.mount("/tmp")
    assert box.shell("echo written > /tmp/new; cat /tmp/new") == "written\n"


def test_the_container_sees_its_root_and_nothing_above(box):
    """Root: "specifies the container's root filesystem"."""
    (box.directory / "outside").write_text("secret")
    assert box.shell("ls -d /../../outside /../rootfs 2>/dev/null; ls /..; echo end").split() == [
        *sorted(os.listdir(box.rootfs)),
        "end",
    ]


UNKNOWN_PLACES = [
    (),
    ("root",),
    ("process",),
    ("process", "user"),
    ("linux",),
    ("mounts", 0),
    ("linux", "namespaces", 0),
]


@pytest.mark.parametrize("place", UNKNOWN_PLACES, ids=lambda place: ".".join(map(str, place)) or "top")
def test_unknown_properties_are_ignored(box, place):
    """Extensibility: "Runtimes MAY log unknown properties but MUST otherwise ignore them"."""
    target = box.config
    for step in place:
        target = target[step]
    target["comExampleUnknown"] = {"some": ["thing", 1, None]}
    assert box.shell("echo ran") == "ran\n"


def test_unknown_annotations_are_ignored(box):
    """Annotations: "Runtimes MUST handle unknown annotation keys like any other unknown property"."""
    box.config["annotations"] = {"org.example.unknown": "anything"}
    assert box.shell("echo ran") == "ran\n"


@pytest.mark.parametrize(
    "annotations", [{"": "value"}, {"com.example.key": 3}, ["com.example.key"]], ids=["no key", "number", "list"]
)
def test_annotations_that_are_none_are_refused(box, annotations):
    """Annotations: "MUST be a key-value map", "Keys MUST NOT be an empty string", "Values MUST be strings"."""
    box.config["annotations"] = annotations
    box.refused()


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', '{"ociVersion": 1}'])
def test_a_file_that_is_no_configuration_is_refused(box, text):
    """Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    (box.directory / "config.json").write_text(text)
    box.runtime("create", "--bundle", box.directory, box.id, output=box.out).failed()
    box.query().failed()


WRONG_TYPES = [
    ("root", "path", 3),
    ("process", "args", "true"),
    ("process", "env", {"A": "b"}),
    ("process", "user", 0),
    ("process", "cwd", ["/"]),
    ("linux", "maskedPaths", "/proc/kcore"),
]


@pytest.mark.parametrize(("section", "field", "value"), WRONG_TYPES, ids=[row[1] for row in WRONG_TYPES])
def test_a_value_of_the_wrong_type_is_refused(box, section, field, value):
    """Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.config[section][field] = value
    box.refused()


def test_the_hostname_is_the_configured_one(box):
    """Hostname: "specifies the container's hostname as seen by processes running inside the container"."""
    before = os.uname().nodename
    box.config["hostname"] = "mrsdalloway"
    assert box.shell("hostname; cat /proc/sys/kernel/hostname") == "mrsdalloway\nmrsdalloway\n"
    assert os.uname().nodename == before


def test_the_domainname_is_the_configured_one(box):
    """Domainname: "specifies the container's domainname as seen by processes running inside the container"."""
    box.config["domainname"] = "foobarbaz.test"
    assert box.shell("cat /proc/sys/kernel/domainname") == "foobarbaz.test\n"
