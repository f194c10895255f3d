"""Hundreds of trials: what they cost the sweep's parent."""

import resource
import time

import pytest

from mvit.rundir.ledger import TrialEnded, read_events
from mvit.rundir.sweep import trials_of

pytestmark = [pytest.mark.mlflow, pytest.mark.chaos, pytest.mark.timeout(1800)]
TRIALS = 500


def test_five_hundred_trials_of_stand_ins(launch_here, stand_ins, monkeypatch, tmp_path):
    """Composing, planning, freezing, starting, mirroring and the table included."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    memory = []
    stand_ins.accuracy = lambda config, epoch: 10.0 + config.seed / 10
    stand_ins.at_start = lambda run: memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    cpu, began = time.process_time(), time.perf_counter()
    seeds = ",".join(map(str, range(TRIALS)))
    done = launch_here("tracking=mlflow", "-m", f"seed={seeds}", "train.epochs=1", "sweep.slots=2")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    each = f"{cpu / TRIALS:.3f} s of the parent's own time each, {wall / TRIALS:.3f} s of wall time each"
    print(f"{TRIALS} trials: {each}; its memory {memory[20]:.0f} MB at the 20th, {memory[-1]:.0f} MB at the last")
    assert done.code == 0, done.err
    (ledger,) = done.runs.glob("*/*/ledger.jsonl")
    ended = [event for event in read_events(ledger.parent) if isinstance(event, TrialEnded)]
    assert sorted(event.trial for event in ended) == list(range(TRIALS))
    assert len(trials_of(ledger.parent)) == TRIALS
    assert f"{TRIALS} FINISHED" in done.out
    assert memory[-1] < memory[20] + 100

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = list(client.search_runs(experiments, max_results=2 * TRIALS))
    assert len(runs) == TRIALS + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_rank = {run.data.tags["rank"]: run.data.params["seed"] for run in runs if "rank" in run.data.tags}
    assert by_rank["1"] == str(TRIALS - 1)
