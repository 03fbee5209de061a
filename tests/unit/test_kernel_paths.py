import os

import pytest

from kernel.errors import SystemCallError
from kernel.paths import create_file_in_root, mkdir_in_root, open_in_root


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_absolute_links_and_dots_stay_inside(root, tmp_path):
    inside = tmp_path / "root"
    (inside / "etc").mkdir()
    (inside / "etc" / "passwd").write_text("inside")
    os.symlink("/etc/passwd", inside / "absolute")
    os.symlink("../../../../etc/passwd", inside / "dots")
    for path in ("absolute", "dots", "/../../etc/passwd"):
        fd = open_in_root(root, path, os.O_RDONLY)
        assert os.read(fd, 10) == b"inside"
        os.close(fd)


def test_magic_links_are_refused(root, tmp_path):
    os.symlink("/proc/self/fd/0", tmp_path / "root" / "magic")
    with pytest.raises(SystemCallError):
        open_in_root(root, "magic", os.O_RDONLY)


def test_directories_are_made_inside_also_behind_a_link(root, tmp_path):
    inside = tmp_path / "root"
    (inside / "var").mkdir()
    os.symlink("/var", inside / "link")
    os.close(mkdir_in_root(root, "/link/a/b"))
    assert (inside / "var" / "a" / "b").is_dir()
    os.close(create_file_in_root(root, "/x/y/file"))
    assert (inside / "x" / "y" / "file").read_bytes() == b""


def test_a_link_that_points_out_makes_nothing_outside(root, tmp_path):
    os.symlink(str(tmp_path / "outside"), tmp_path / "root" / "trap")
    with pytest.raises(SystemCallError):
        os.close(mkdir_in_root(root, "/trap/new"))
    assert os.listdir(tmp_path / "outside") == []
