"""Network devices of the host that move into a container (`linux.netDevices`)."""

import subprocess

import pytest

from kernel.errors import ContainerError
from runtime import spec


def _ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


@pytest.fixture
def device():
    """One end of a veth pair with addresses; the other end stays and takes it along when it is deleted."""
    _ip("link", "add", "rpkeep", "type", "veth", "peer", "name", "rpmove")
    _ip("address", "add", "10.99.7.2/24", "dev", "rpmove")
    _ip("address", "add", "fd00:99::2/64", "dev", "rpmove", "nodad")
    _ip("link", "set", "rpmove", "up")
    yield "rpmove"
    subprocess.run(["ip", "link", "delete", "rpkeep"], check=False, capture_output=True)


def _config(box, **devices):
    config = box.config("busybox", "ip", "address")
    config.linux.net_devices = {name: spec.NetDevice(new) for name, new in devices.items()}
    return config


def test_a_device_moves_with_its_addresses_and_is_up(box, device):
    printed = box.run(_config(box, rpmove="data0"))[1]
    assert "data0@" in printed
    assert "inet 10.99.7.2/24" in printed
    assert "inet6 fd00:99::2/64" in printed
    assert "UP" in printed.split("data0@")[1].splitlines()[0]


def test_a_device_keeps_its_name_where_none_is_given(box, device):
    assert "rpmove@" in box.run(_config(box, rpmove=""))[1]


def test_a_template_is_filled_in_by_the_kernel(box, device):
    assert "data0@" in box.run(_config(box, rpmove="data%d"))[1]


def test_a_name_that_is_taken_is_an_error_and_the_device_stays(box, device):
    with pytest.raises(ContainerError, match="'rpmove' -> 'lo': there is one of that name"):
        box.create(_config(box, rpmove="lo"))
    _ip("link", "show", "rpmove")


def test_a_device_that_is_not_there_is_an_error(box):
    with pytest.raises(ContainerError, match="network device 'rpnone': no such device on the host"):
        box.create(_config(box, rpnone=""))
