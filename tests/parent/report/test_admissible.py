"""Each rule is broken alone, and says why."""

import json

import pytest

from mvit.cli.main import main
from mvit.files import read_json, write_json
from mvit.parent.report.admissible import claims, findings, read_rules, verdict
from mvit.parent.report.record import run_of
from mvit.rundir.ending import record_end
from mvit.rundir.ledger import Ledger, SweepRequest, TrialFrozen, TrialPaused
from mvit.rundir.result import read_result, write_result
from tests.conftest import SWEEP


def broken(folder):
    return {finding.rule: finding.reason for finding in findings(run_of(folder.path)) if finding.reason}


def edit(file, **changes):
    write_json(file, {**read_json(file), **changes})


def result(folder, **changes):
    now = read_result(folder)
    assert now
    write_result(folder, now.model_copy(update=changes))


def measured(folder, metric, value):
    now = read_result(folder)
    assert now
    result(folder, metrics={**now.metrics, metric: value})


def test_a_good_run_breaks_no_rule(admissible):
    folder = admissible()
    assert broken(folder) == {}
    assert verdict(run_of(folder.path)) == "yes"
    single = {rule for rule in read_rules().rules if rule not in ("seeds", "target")}
    assert {finding.rule for finding in findings(run_of(folder.path))} == single


BREAKS = {
    "finished": (lambda f: record_end(f, "FAILED", exit_code=1), "it is FAILED"),
    "every_image_once": (
        lambda f: write_json(f.confusion, {"counts": [[5]]}),
        "5 images were counted, and the data has",
    ),
    "code": (lambda f: edit(f.provenance, num_changed=2), "there were changes, and their patch is not kept"),
    "versions": (
        lambda f: edit(f.provenance, versions={"numpy": "1.0", "mindspore": None}),
        "numpy 1.0, mindspore None instead of ",
    ),
    "journal": (lambda f: f.journal.write_text("{}\n"), "it has changed since the run ended"),
    "compiled_apart": (lambda f: result(f, compiled=2), "2 training graphs were compiled, and 1 planned"),
    "uninterrupted": (lambda f: f.attempt_logs(2).mkdir(), "it took 2 attempts"),
    "steady": (lambda f: result(f, steps=12), "9 steps, and 50 are asked for"),
    "load": (
        lambda f: measured(f, "perf/other_load_pct", 80.0),
        "others used 0.80 cores, and 0.25 are allowed",
    ),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_rule_is_broken_alone(admissible, rule):
    folder = admissible()
    act, reason = BREAKS[rule]
    act(folder)
    found = broken(folder)
    assert list(found) == [rule]
    assert found[rule].startswith(reason)
    assert verdict(run_of(folder.path)) == ("not the speed" if rule in read_rules().of_speed else "no")


def test_a_change_that_is_kept_as_a_patch_is_no_fault_and_an_unknown_file_is(admissible):
    folder = admissible()
    edit(folder.provenance, num_changed=2)
    folder.patch.write_text("diff")
    assert broken(folder) == {}
    edit(folder.provenance, untracked=["notes.txt", "mvit/mine.py"])
    assert broken(folder) == {"code": "files that git does not know: mvit/mine.py"}


def test_a_recipe_with_one_changed_value_is_named(admissible):
    assert broken(admissible("aaaa", "experiment=smoke", "seed=7", "topology=cpu_2")) == {}
    found = broken(admissible("bbbb", "experiment=smoke", "optimizer.weight_decay=0.2"))
    assert found == {"recipe": "optimizer.weight_decay=0.2 instead of 0.01"}


def test_a_trial_may_differ_in_what_its_sweep_varies(admissible, tmp_path):
    folder = admissible("aaaa", "experiment=smoke", "optimizer.weight_decay=0.2", place="sweep")
    trial = TrialFrozen(trial=0, folder=folder.path.name, overrides=("optimizer.weight_decay=0.2",))
    Ledger(tmp_path / "sweep").append(SweepRequest(argv=(), overrides=(), sweep=SWEEP, slots=("",)), trial)
    assert broken(folder) == {}


def test_a_trial_that_waited_at_a_rung_was_measured_since(admissible, tmp_path):
    folder = admissible("aaaa", place="sweep")
    folder.attempt_logs(2).mkdir()
    assert broken(folder) == {"uninterrupted": "it took 2 attempts"}
    trial = TrialFrozen(trial=7, folder=folder.path.name, overrides=())
    Ledger(tmp_path / "sweep").append(
        SweepRequest(argv=(), overrides=(), sweep=SWEEP, slots=("",)),
        trial,
        TrialPaused(trial=7, epoch=2, values={}),
        TrialPaused(trial=8, epoch=2, values={}),
    )
    assert broken(folder) == {}
    Ledger(tmp_path / "sweep").append(TrialPaused(trial=7, epoch=9, values={}))
    folder.attempt_logs(3).mkdir()
    assert broken(folder)["steady"].startswith("41 steps, and 50 are asked for")
    folder.attempt_logs(4).mkdir()  # this one restarted
    assert broken(folder)["uninterrupted"] == "it took 2 attempts"


def test_other_data_than_the_references_is_named(admissible, monkeypatch):
    folder = admissible()
    rules = read_rules().model_copy(update={"fingerprints": {"digits": "f" * 64}})
    monkeypatch.setattr("mvit.parent.report.admissible.read_rules", lambda: rules)
    assert broken(folder)["data"].endswith(f"instead of {'f' * 12}")


def test_a_result_that_is_too_good_is_flagged(admissible, configured, tmp_path):
    folder = admissible("aaaa", "name=reproduce_xx_small", acc=72.0)
    assert broken(folder)["plausible"] == "72.00 % is 3.09 points above the reference; look for a leak first"


def test_a_fork_is_named(admissible):
    folder = admissible(fork=True)
    assert broken(folder) == {"from_scratch": "it is a fork of 20261128-100000-cafe after step 80"}
    assert verdict(run_of(folder.path)) == "no"


def test_a_run_without_a_result_is_none(admissible):
    folder = admissible()
    folder.result.unlink()
    assert broken(folder) == {"finished": "it is FINISHED, without a result"}


def test_claims_over_seeds_are_counted_and_tested(admissible):
    folders = [admissible(f"000{seed}", f"seed={seed}", acc=acc) for seed, acc in ((1, 98.9), (2, 99.2), (3, 99.1))]
    three = [run_of(folder.path) for folder in folders]
    assert [finding.reason for finding in claims(three, seeds=3, target=98.0)] == ["", ""]
    again = [*three[:2], run_of(admissible("0004", "seed=2", acc=99.2).path)]
    assert claims(again, seeds=3, target=None)[0].reason == "2 seeds are there, and 3 are claimed"
    (target,) = claims(three, seeds=None, target=99.0)
    assert target.reason == "99.07 % on average of 3, p = 0.264, and 0.01 is asked for"
    other = [*three, run_of(admissible("0005", "seed=5", "model=x_small").path)]
    for seeds, target in ((3, 98.0), (3, None), (None, 98.0)):
        (mixed,) = claims(other, seeds=seeds, target=target)
        assert mixed.reason == "the runs have 2 different configurations"


def test_the_accuracy_of_a_claim_is_the_one_that_the_table_shows(averaged):
    records = [run_of(folder.path) for folder in averaged]
    assert [finding.reason for finding in claims(records, seeds=3, target=90.0)] == ["", ""]
    (target,) = claims(records, seeds=None, target=92.0)
    assert target.reason.startswith("91.10 % on average of 3, ")


def test_an_average_that_is_too_good_is_flagged(admissible):
    folder = admissible("aaaa", "name=reproduce_xx_small", acc=60.0, ema=72.0)
    assert broken(folder)["plausible"].startswith("72.00 % is 3.09 points above the reference")


def test_the_command_says_what_is_broken_and_exits_with_it(admissible, capsys):
    good, bad = admissible("aaaa"), admissible("bbbb", "seed=2")
    bad.attempt_logs(2).mkdir()
    assert main(["check", str(good.path)]) == 0
    assert "aaaa  " in (out := capsys.readouterr().out)
    assert ": admissible\n" in out
    assert main(["check", str(good.path), str(bad.path), "--seeds", "3"]) == 1
    out = capsys.readouterr().out
    assert "  no  no restart while the speed was measured: it took 2 attempts\n" in out
    assert "  no  as many seeds as are claimed: 2 seeds are there, and 3 are claimed\n" in out


def test_the_rules_are_read_strictly(tmp_path):
    (tmp_path / "rules.json").write_text(json.dumps({"rules": {"finish": "x"}}))
    with pytest.raises(ValueError, match="finish"):
        read_rules(tmp_path / "rules.json")
