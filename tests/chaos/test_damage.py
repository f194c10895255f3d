"""Run folders that were damaged after a stop: what can be mended is, what cannot is refused in one line."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mvit.files import file_digest, read_json, sealed
from mvit.rundir.stop import StopReason, write_stop
from tests.chaos.conftest import TWO_WORKERS
from tests.scene import Scene

pytestmark = [pytest.mark.mindspore, pytest.mark.chaos]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, empty_store):
    """A run that was stopped after step 35 or so, with two checkpoints and the best; and a copy of all of it."""
    path = tmp_path_factory.mktemp("stopped") / "room"
    scene = Scene(path, recipe=TWO_WORKERS)
    shutil.copy(empty_store, path / "mlflow.db")
    scene.launch().until_step(35).kill("launcher", signal.SIGINT).end()
    scene.holds("KILLED", code=130, at_least=35)
    shutil.copytree(path, path.parent / "kept")
    return path


@pytest.fixture
def scene(stopped):
    """The stopped run, as it was."""
    shutil.rmtree(stopped / "runs")
    shutil.rmtree(stopped / "mlartifacts")
    shutil.copytree(stopped.parent / "kept", stopped, dirs_exist_ok=True)
    made = Scene(stopped, recipe=TWO_WORKERS)
    yield made
    made.make_room()


def newest(scene):
    return sorted(scene.folder.checkpoints.glob("step-*.safetensors"))[-1]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def rewrite(path, change):
    """Other tensors, for which the sidecar vouches."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    vouch(path)


def vouch(path):
    """Let the sidecar say that the file is right."""
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(sealed({**read_json(sidecar), "sha256": file_digest(path)})))


def flip_step(path):
    """Another step in the sidecar."""
    sidecar = path.with_suffix(".json")
    content = read_json(sidecar)
    content["progress"]["step"] -= 1
    sidecar.write_text(json.dumps(content))


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def resumes(scene):
    scene.resume().end()
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


HEAD = "head.weight"
NEWEST_IS_LOST = {
    "truncated": lambda p: truncate(p),
    "a flipped byte of a weight": lambda p: flip(p, -5),
    "a flipped byte of the header": lambda p: flip(p, 20),
    "empty": lambda p: p.write_bytes(b""),
    "a pickle that the sidecar vouches for": lambda p: (p.write_bytes(b"\x80\x04K\x01." * 1000), vouch(p)),
    "a sidecar with another step": flip_step,
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a sidecar that is truncated": lambda p: truncate(p.with_suffix(".json")),
    "a sidecar of another kind": lambda p: p.with_suffix(".json").write_text("[1, 2]"),
    "a sidecar without its hash": lambda p: p.with_suffix(".json").write_text('{"step": 35}'),
    "a sidecar that is nested without end": lambda p: p.with_suffix(".json").write_text("[" * 200_000),
    "weights that are not finite": lambda p: rewrite(p, lambda t: t[HEAD].__setitem__((0, 0), np.nan)),
}


@pytest.mark.parametrize("how", NEWEST_IS_LOST)
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(scene, how):
    path = newest(scene)
    before = read_json(sorted(scene.folder.checkpoints.glob("step-*.json"))[-2])["step"]
    NEWEST_IS_LOST[how](path)
    resumes(scene)
    (event,) = scene.events("resumed")
    assert event["step"] == before
    assert len(event["damaged"]) == 1
    assert "skipped: " in scene.out
    assert path.stem in scene.out


UNVOUCHED = {
    "without its sidecar": lambda p: p.with_suffix(".json").unlink(),
    "without its tensors": lambda p: p.unlink(),
    "beside it what a kill leaves": lambda p: p.with_name(f".{p.name}.abcd").write_bytes(b"half"),
}


@pytest.mark.parametrize("how", UNVOUCHED)
def test_a_checkpoint_that_is_not_all_there_is_none(scene, how):
    UNVOUCHED[how](newest(scene))
    resumes(scene)
    assert not list(scene.folder.checkpoints.glob(".*"))


REFUSED = {
    "another shape": (lambda t: t.__setitem__(HEAD, t[HEAD][:, :-1].copy()), "has shape"),
    "a name too few": (lambda t: t.pop(HEAD), "lacks head.weight"),
    "a name too many": (lambda t: t.__setitem__("neck.weight", t[HEAD]), "holds neck.weight"),
    "another type": (lambda t: t.__setitem__(HEAD, t[HEAD].astype(np.int64)), "is int64"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_checkpoint_of_another_network_is_refused(scene, how):
    change, words = REFUSED[how]
    rewrite(newest(scene), change)
    scene.resume().end()
    scene.holds("FAILED", code=1, kind="checkpoint")
    assert words in scene.err


def test_without_a_whole_checkpoint_the_run_is_refused(scene):
    for path in scene.folder.checkpoints.glob("step-*.safetensors"):
        truncate(path)
    scene.resume().end()
    damaged = len(list(scene.folder.checkpoints.glob("step-*.safetensors")))
    scene.holds("KILLED", code=2, damaged=damaged)
    assert scene.err.endswith("none of its checkpoints is whole; remove them to start over\n")


HARMLESS = {
    "last.json is torn": lambda f: truncate(f.checkpoints / "last.json"),
    "last.json is gone": lambda f: (f.checkpoints / "last.json").unlink(),
    "best.json is torn": lambda f: truncate(f.checkpoints / "best.json"),
    "best.json names a stranger": lambda f: (f.checkpoints / "best.json").write_text('{"file": "../../../etc/passwd"}'),
    "tracking.json is torn": lambda f: truncate(f.tracking),
    "tracking.json is gone": lambda f: f.tracking.unlink(),
    "launcher.json is torn": lambda f: truncate(f.launcher),
    "end.json is torn": lambda f: truncate(f.end),
    "end.json is gone": lambda f: f.end.unlink(),
    "a status is torn": lambda f: truncate(f.status / "1.json"),
    "a status is another's": lambda f: (f.status / "0.json").write_text('["rank"]'),
    "provenance.json is torn": lambda f: truncate(f.provenance),
    "a request to stop is left": lambda f: write_stop(f, StopReason(kind="pause"), after_epoch=1),
    "logs are gone": lambda f: shutil.rmtree(f.logs),
}


@pytest.mark.parametrize("how", HARMLESS)
def test_what_can_be_done_without_is(scene, how):
    HARMLESS[how](scene.folder)
    resumes(scene)


def test_a_torn_last_line_of_the_journal_costs_that_line(scene):
    os.truncate(scene.folder.journal, scene.folder.journal.stat().st_size - 9)
    known = scene.steps()
    scene.resume().end()
    assert scene.process.returncode == 0, scene.err
    scene.left_nothing()
    # A line after the checkpoint would have come again; of the checkpoint's own step it does not.
    assert scene.steps() == known + list(range(known[-1] + 2, 81))
    client, (run,) = scene.mlflow_runs()  # it was told of that step in time
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == list(range(1, 81))


def test_a_journal_with_a_torn_line_in_its_midst_keeps_the_others(scene):
    lines = scene.folder.journal.read_bytes().splitlines(keepends=True)
    lines[10] = b'{"time": 17\xff\n'
    scene.folder.journal.write_bytes(b"".join(lines))
    scene.resume().end()
    assert scene.process.returncode == 0, scene.err
    assert read_json(scene.folder.end)["status"] == "FINISHED"
    scene.left_nothing()
    _, (run,) = scene.mlflow_runs()
    assert run.info.status == "FINISHED"
    assert "metrics.jsonl has lines that are torn" in scene.err


def test_a_lost_journal_is_begun_anew(scene):
    scene.folder.journal.unlink()
    scene.resume().end()
    scene.left_nothing()
    assert scene.process.returncode == 0, scene.err
    assert scene.steps()[-1] == 80
    _, (run,) = scene.mlflow_runs()
    assert run.info.status == "FINISHED"


def of_run(change):
    def act(folder):
        content = read_json(folder.run)
        change(content)
        folder.run.write_text(json.dumps(content))

    return act


NO_RUN = {
    "run.json is torn": (lambda f: truncate(f.run), "run.json is missing or torn"),
    "run.json is of another version": (of_run(lambda c: c.update(schema=99)), "has schema 99"),
    "run.json was changed": (of_run(lambda c: c["config"].update(seed=2)), "was edited after the run was frozen"),
    "run.json is nested without end": (lambda f: f.run.write_text("[" * 200_000), "run.json is missing or torn"),
    "run.json is huge": (lambda f: os.truncate(f.run, 1 << 33), "run.json is missing or torn"),
}


@pytest.mark.parametrize("how", NO_RUN)
def test_a_run_that_is_not_the_one_that_was_made_is_refused(scene, how):
    path = scene.folder.path
    change, words = NO_RUN[how]
    change(scene.folder)
    done = scene.call("-m", "mvit", "resume", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    scene.checkpoints_hold(at_least=35)
    _, (run,) = scene.mlflow_runs()
    assert run.info.status == "KILLED"
