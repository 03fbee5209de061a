import json

from kernel import events
from kernel.errors import SystemCallError
from kernel.mounts import umount2


def test_every_call_is_told_with_its_arguments_and_outcome():
    seen = []
    unsubscribe = events.subscribe(seen.append)
    try:
        umount2("/nowhere/at/all", 8)
    except SystemCallError:
        pass
    finally:
        unsubscribe()
    (event,) = seen
    assert event.name == "umount2"
    assert event.arguments == {"target": "/nowhere/at/all", "flags": 8}
    assert event.errno in (1, 2)  # not permitted, or no such file
    json.dumps(list(event))


def test_an_instrument_that_raises_is_dropped_and_the_others_stay(capsys):
    seen = []

    def broken(event):
        raise RuntimeError("broken instrument")

    events.subscribe(broken)
    unsubscribe = events.subscribe(seen.append)
    events.emit("a", {})
    events.emit("b", {})
    unsubscribe()
    assert [event.name for event in seen] == ["a", "b"]
    assert not events.observed()
    assert "broken instrument" in capsys.readouterr().err


def test_report_tells_the_errno_and_lets_the_error_pass():
    seen = []
    unsubscribe = events.subscribe(seen.append)
    try:
        with events.report("write", path="x"):
            raise OSError(28, "no space")
    except OSError:
        pass
    finally:
        unsubscribe()
    assert (seen[0].name, seen[0].errno) == ("write", 28)
