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
    assert (found["best/val_acc1_n"], found["trials/finished"]) == (2.0, 2.0)
