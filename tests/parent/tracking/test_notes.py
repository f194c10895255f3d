"""Notes of runs and of experiments: kept current, and never over a person's own."""

import shutil
import socket

import pytest

from mvit.data import dataset
from mvit.files import write_json
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.tracking.experiment_note import keep_experiment_note
from mvit.parent.tracking.note import LONGEST, NOTE, note_of, tags_of_note
from mvit.rundir.ending import Failure, record_end, write_failure
from mvit.rundir.fork import FORKED_FROM, Fork
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import TrainResult, write_result


@pytest.fixture
def made(configured, tmp_path):
    """Makes a finished run."""

    def make(name, *overrides, acc):
        config = configured(*overrides)
        plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
        run = Run(create_run_dir(tmp_path / "runs" / "x" / f"20261129-100000-{name}"), config, plan)
        write_run(run)
        write_json(run.folder.provenance, {"commit": "a" * 40, "command": "launch.py seed=2"})
        metrics = {"val/acc1": acc, "best/val_acc1": acc + 0.5, "perf/images_per_s": 640.0, "perf/step_ms": 50.0}
        write_result(run.folder, TrainResult(task="train", steps=9, metrics=metrics, graphs={}, compiled=1))
        record_end(run.folder, "FINISHED", exit_code=0)
        return run

    return make


@pytest.fixture
def run(made):
    return made("f029", acc=98.5)


def test_a_note_has_result_data_code_and_the_next_command(run):
    note = note_of(run, "FINISHED")
    assert "| acc@1 | 98.50 % last, 99.00 % best |" in note
    assert "- data: digits, 1437 and 360 images, fingerprint `00066bcb45b0`" in note
    assert f"- code: commit `{'a' * 12}`\n" in note
    assert "- made by: `launch.py seed=2`" in note
    assert f"- reproduce: `python -m mvit reproduce {run.folder.path}`" in note


def test_a_fork_has_its_origin_instead_of_a_command_that_refuses_it(run):
    made_from = Fork(folder="/runs/x/20261128-100000-cafe", step=80, run_sha256="f" * 64)
    write_json(run.folder.provenance, {FORKED_FROM: made_from.model_dump()})
    assert note_of(run, "FINISHED").endswith("\n- fork of: `20261128-100000-cafe`, after step 80")


def test_a_failure_is_named_with_how_to_go_on(run):
    write_failure(run.folder, Failure("nan", 0, "step", "the loss is not finite"))
    run.folder.patch.write_text("diff")
    note = note_of(run, "FAILED")
    assert note.startswith("**FAILED**: the loss is not finite\n")
    assert "with the changes in `code.patch`" in note
    assert f"- continue: `python -m mvit resume {run.folder.path}`" in note


def test_a_persons_note_is_left_alone_and_ours_is_renewed():
    ours = tags_of_note("first", {})
    assert ours[NOTE] == "first"
    assert tags_of_note("second", ours)[NOTE] == "second"
    assert tags_of_note("second", {**ours, NOTE: "theirs"}) == {}
    assert tags_of_note("second", {NOTE: "theirs"}) == {}
    assert len(tags_of_note("x" * 9000, {})[NOTE]) < LONGEST + 10


@pytest.mark.mlflow
def test_an_experiment_has_the_table_of_its_results(run, empty_store, tmp_path):
    from mvit.parent.tracking.store import connect, ensure_experiment

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = connect(uri)
    experiment = ensure_experiment(client, uri, "mvit")
    assert keep_experiment_note(client, experiment, name="mvit", uri=uri, runs=tmp_path / "nowhere") is None
    assert client.get_experiment(experiment).tags[NOTE].startswith("No results yet.")
    assert keep_experiment_note(client, experiment, name="mvit", uri=uri, runs=tmp_path / "runs") is None
    note = client.get_experiment(experiment).tags[NOTE]
    first, _, *table = note.splitlines()  # MLflow shows the first line alone
    assert first.startswith("**Results**: 98.50 % acc@top1 by ")
    command = f"`python -m mvit table {tmp_path}/runs --where 'tracking.experiment=\"mvit\"' --format markdown`"
    assert first.endswith(f" Made by {command} on {socket.gethostname()}.")
    assert "98.50" in table[2]
    client.set_experiment_tag(experiment, NOTE, "theirs")
    keep_experiment_note(client, experiment, name="mvit", uri=uri, runs=tmp_path / "runs")
    assert client.get_experiment(experiment).tags[NOTE] == "theirs"


@pytest.mark.mlflow
def test_the_note_of_an_experiment_has_its_own_runs_alone(made, empty_store, tmp_path):
    from mvit.parent.tracking.store import connect, ensure_experiment

    made("aaaa", "model=x_small", acc=98.5)
    made("bbbb", "tracking.experiment=other", acc=99.5)
    made("cccc", "tracking=none", acc=99.9)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = connect(uri)
    notes = {}
    for name in ("mvit", "other"):
        experiment = ensure_experiment(client, uri, name)
        assert keep_experiment_note(client, experiment, name=name, uri=uri, runs=tmp_path / "runs") is None
        notes[name] = client.get_experiment(experiment).tags[NOTE]
    assert {name: [run for run in ("aaaa", "bbbb", "cccc") if run in note] for name, note in notes.items()} == {
        "mvit": ["aaaa"],
        "other": ["bbbb"],
    }
    assert notes["other"].startswith("**Results**: 99.50 % acc@top1 by ")
