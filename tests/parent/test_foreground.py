"""The exit code of a run that someone asked to stop."""

import pytest

from mvit.parent import foreground
from mvit.parent.foreground import follow
from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import this_host
from mvit.parent.request.compose import compose
from mvit.parent.slot import Slot
from mvit.rundir.ending import Failure, Outcome

NAN = Failure("nan", 0, "step", "the loss is not finite")


@pytest.mark.parametrize(
    ("request_stop", "outcome", "code"),
    [
        ("limit", Outcome("KILLED", 75), 75),
        ("limit", Outcome("FINISHED", 0), 0),  # it came to its end meanwhile: its job is not to be queued again
        ("limit", Outcome("FAILED", 1, NAN), 1),
        ("interrupt", Outcome("KILLED", 130), 130),
        ("interrupt", Outcome("FINISHED", 0), 130),  # nothing is to come after it
    ],
)
def test_what_ended_by_itself_is_not_to_go_on(tmp_path, monkeypatch, request_stop, outcome, code):
    run = freeze(plan_launch(compose([]), host=this_host()), tmp_path / "x/20261129-100000-abcd", made_of=({}, ""))

    def execute(*_, stop, **__):
        stop.limit() if request_stop == "limit" else stop.signal(2)
        return outcome

    monkeypatch.setattr(foreground, "execute", execute)
    assert follow(run, slot=Slot()).exit_code == code
