"""A process killed at any step leaves nothing that detach(uid), repair(pods) or the next attempt does not cure."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from kernel import events
from kernel.errors import HostError
from netns import veth
from netns.attach import Network
from netns.netlink import Netlink
from netns.ports import HostPort
from runtime.settings import Settings
from tests.netns_lab import Lab, Namespace, ask, lab, run

__all__ = ["lab"]

PORTS = [HostPort("", 8080, 80)]


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed right after its event number `step`; whether it came that far."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            count = 0

            def kill(_: events.Event) -> None:
                nonlocal count
                count += 1
                if count > step:
                    os.kill(os.getpid(), signal.SIGKILL)

            events.subscribe(kill)
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


def attach_and_publish(network: Network, uid: str, namespace: Namespace) -> None:
    network.attach(uid, namespace.fd)
    network.publish(uid, PORTS)


def nothing_is_left(lab: Lab) -> None:
    assert lab.network.leases() == {}
    assert lab.bridge not in run("ip", "-o", "link")
    assert lab.bridge not in run("nft", "list", "tables")


def steps() -> range:
    return range(200)


@pytest.mark.parametrize("cure", ["detach", "repair"])
def test_attach_killed_at_each_step_is_cured(lab: Lab, cure: str) -> None:
    for step in steps():
        with Namespace() as namespace:
            killed = killed_at(step, lambda: attach_and_publish(lab.network, "one", namespace))
            if cure == "detach":
                lab.network.detach("one")
            else:
                lab.network.repair(dict)
        nothing_is_left(lab)
        if not killed:
            assert step > 20
            return
    pytest.fail("the work never came to its end")


def test_attach_killed_at_each_step_is_done_again(lab: Lab, settings: Settings) -> None:
    for step in steps():
        with Namespace() as namespace:
            killed = killed_at(step, lambda: attach_and_publish(lab.network, "one", namespace))
            attachment = lab.network.attach("one", namespace.fd)
            lab.network.publish("one", PORTS)
            server = namespace.listen(80)
            assert ask("127.0.0.1", 8080) == attachment.gateway
            server.close()
            assert lab.network.repair(lambda: {"one": namespace.path}) == []
        lab.network.detach("one", namespace_gone=True)
        nothing_is_left(lab)
        if not killed:
            return
    pytest.fail("the work never came to its end")


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside another"])
def test_detach_killed_at_each_step_is_done_again(lab: Lab, others: bool) -> None:
    if others:
        lab.pod("other")
    for step in steps():
        with Namespace() as namespace:
            attach_and_publish(lab.network, "one", namespace)
            killed = killed_at(step, lambda: lab.network.detach("one"))
            lab.network.detach("one")
        if others:
            assert list(lab.network.leases().values()) == ["other"]
            assert lab.network.repair(lambda: {"other": None}) == []
        else:
            nothing_is_left(lab)
        if not killed:
            return
    pytest.fail("the work never came to its end")


def test_a_failure_at_any_request_is_cleaned_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Netlink.request
    for step in steps():
        calls = 0

        def failing(self: Netlink, *messages: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step + 1:  # noqa: B023
                raise HostError("as the test wants it")
            return real(self, *messages)  # type: ignore[arg-type]

        monkeypatch.setattr(Netlink, "request", failing)
        with Namespace() as namespace:
            try:
                lab.network.attach("one", namespace.fd)
            except HostError:
                monkeypatch.setattr(Netlink, "request", real)
                nothing_is_left(lab)
                continue
            monkeypatch.setattr(Netlink, "request", real)
            lab.network.detach("one")
            return
    pytest.fail("the work never came to its end")


def test_a_lease_without_an_owner_is_freed(lab: Lab, settings: Settings) -> None:
    _, attachment = lab.pod("one")
    (settings.state / "network" / "owners" / "one").write_bytes(b"\xff\0damaged")
    assert lab.network.lease("one") == attachment
    (settings.state / "network" / "owners" / "one").unlink()
    assert list(lab.network.leases()) == [attachment.address]
    lab.network.repair(dict)
    nothing_is_left(lab)


def test_a_pod_that_cannot_be_reached_is_reported(lab: Lab) -> None:
    _, attachment = lab.pod("one")
    run("ip", "link", "delete", attachment.link)
    lines = lab.network.repair(lambda: {"one": None})
    assert lines == [f"link '{veth.link_name('one')}' of pod 'one' is broken, and its namespace cannot be reached"]
