"""The end of a run: the exit code where someone asked to stop it, and what a person may do next."""

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


@pytest.mark.parametrize(
    ("outcome", "last"),
    [
        (Outcome("FAILED", 1, NAN), "mvit: once the cause is fixed, continue with: python -m mvit resume {}"),
        (
            Outcome("FAILED", 1, Failure("hang", 0, "step", "stands still")),
            "mvit: there is no checkpoint; continue with: python -m mvit resume {}",
        ),
        (Outcome("FINISHED", 0), "mvit: compare it with other runs: python -m mvit table"),
    ],
)
def test_the_end_names_the_next_command(tmp_path, monkeypatch, capsys, outcome, last):
    run = freeze(plan_launch(compose([]), host=this_host()), tmp_path / "x/20261129-100000-abcd", made_of=({}, ""))
    monkeypatch.setattr(foreground, "execute", lambda *_, **__: outcome)
    follow(run, slot=Slot())
    said = capsys.readouterr()
    lines = said.err if outcome.failure else said.out
    assert lines.splitlines()[-1] == last.format(run.folder.path)
