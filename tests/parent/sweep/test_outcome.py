"""What a sweep says of itself to MLflow."""

from mvit.parent.sweep.outcome import SweepOutcome
from mvit.rundir.result import TrainResult, write_result


def test_a_sweep_has_the_speed_and_accuracy_of_its_best_trial(launch_here, stand_ins):
    stand_ins.accuracy = lambda config, epoch: 1e4 * config.optimizer.lr
    done = launch_here("-m", "optimizer.lr=1e-3,2e-3", "train.epochs=1")
    assert done.code == 0, done.err
    (ledger,) = done.runs.glob("*/*/ledger.jsonl")
    outcome = SweepOutcome(ledger.parent)
    for trial in outcome.trials:
        metrics = {"val/acc1": trial.values["best/val_acc1"], "perf/images_per_s": 100.0 + trial.number}
        result = TrainResult(task="train", steps=1, metrics=metrics, graphs={}, compiled=1)
        write_result(trial.folder, result)
    found = outcome.summary().metrics
    assert (found["best/val_acc1"], found["val/acc1"], found["perf/images_per_s"]) == (20.0, 20.0, 101.0)
    assert "perf/compile_s" not in found
    assert found["trials/finished"] == 2.0
    assert not any(key.endswith(("_mean", "_std", "_n")) for key in found), "of two rates, a mean says nothing"


def test_objectives_do_not_overwrite_each_other(launch_here, stand_ins):
    stand_ins.accuracy = lambda config, epoch: 1e4 * config.optimizer.lr - 5.0 * epoch
    objectives = "sweep.objectives=[best/val_acc1,val/acc1,params]"
    done = launch_here("-m", "optimizer.lr=1e-3,2e-3", "train.epochs=2", objectives)
    assert done.code == 0, done.err
    (ledger,) = done.runs.glob("*/*/ledger.jsonl")
    found = SweepOutcome(ledger.parent).summary().metrics
    assert (found["best/val_acc1"], found["best/val/acc1"]) == (15.0, 10.0)
    assert "best/params" in found


def test_the_best_accuracy_of_a_sweep_is_that_of_its_best_trial_whatever_it_is_compared_by(launch_here, stand_ins):
    stand_ins.accuracy = lambda config, epoch: 1e4 * config.optimizer.lr - 5.0 * epoch
    done = launch_here("-m", "optimizer.lr=1e-3,2e-3", "train.epochs=2", "sweep.objectives=[val/acc1]")
    assert done.code == 0, done.err
    (ledger,) = done.runs.glob("*/*/ledger.jsonl")
    outcome = SweepOutcome(ledger.parent)
    metrics = {"val/acc1": 10.0, "best/val_acc1": 15.0}
    write_result(outcome.trials[1].folder, TrainResult(task="train", steps=2, metrics=metrics, graphs={}, compiled=1))
    found = SweepOutcome(ledger.parent).summary().metrics
    assert (found["best/val_acc1"], found["best/val/acc1"]) == (15.0, 10.0)


def test_seeds_have_a_mean_and_a_deviation(launch_here, stand_ins):
    stand_ins.accuracy = lambda config, epoch: 90.0 + config.seed
    done = launch_here("-m", "seed=1,2,3", "train.epochs=1")
    assert done.code == 0, done.err
    (ledger,) = done.runs.glob("*/*/ledger.jsonl")
    found = SweepOutcome(ledger.parent).summary().metrics
    assert [found[f"best/val_acc1_{what}"] for what in ("mean", "std", "n")] == [92.0, 1.0, 3.0]
