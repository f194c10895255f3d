"""Reproduction without the processes: which numbers must be equal."""

import pytest

from mvit.cli.reported import reported
from mvit.files import write_json
from mvit.parent import reproduce as reproduction
from mvit.parent.freeze import plan_launch
from mvit.parent.host import this_host
from mvit.parent.reproduce import reproduce
from mvit.parent.slot import Slot
from mvit.rundir.ending import Outcome, record_end
from mvit.rundir.fork import FORKED_FROM, Fork
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import BenchmarkResult, PredictResult, write_result


def benchmarked(metrics):
    return BenchmarkResult(task="benchmark", metrics=metrics, graphs={}, shapes=())


def predicted(metrics):
    return PredictResult(task="predict", metrics=metrics, graphs={}, count=3, unreadable=0, weights="raw")


def finish(run, result):
    write_result(run.folder, result)
    record_end(run.folder, "FINISHED", exit_code=0)


@pytest.fixture
def again(raw, tmp_path, monkeypatch, capsys):
    """Reproduces a run of one result, which comes to another one."""

    def act(first, second, *, made_of=None, answers=()):
        planned = plan_launch(raw(f"runs_dir={tmp_path}/runs", "tracking=none"), host=this_host())
        origin = Run(create_run_dir(tmp_path / "runs/x/20261129-100000-aaaa"), planned.config, planned.plan)
        write_run(origin)
        write_json(origin.folder.provenance, made_of or {})
        finish(origin, first)
        if answers:
            origin.folder.answers.write_text(answers[0])

        def follow(run, *, slot):
            finish(run, second)
            if answers:
                run.folder.answers.write_text(answers[1])
            return Outcome("FINISHED", 0)

        monkeypatch.setattr(reproduction, "follow", follow)
        code = reported(lambda: reproduce(origin.folder.path, slot=Slot(), argv=["mvit"]))
        return code, *capsys.readouterr()

    return act


def test_a_prediction_has_no_accuracy_that_could_differ(again):
    metrics = {"predict/images": 3.0, "predict/unreadable": 0.0}
    code, out, err = again(predicted({**metrics, "perf/images_per_s": 9.0}), predicted(metrics))
    assert (code, err) == (0, "")
    assert out.endswith("mvit: reproduced: 2 numbers are equal to the bit\n")


def test_another_number_of_unreadable_images_is_a_difference(again):
    code, _, err = again(predicted({"predict/unreadable": 0.0}), predicted({"predict/unreadable": 1.0}))
    assert code == 1
    assert "not reproduced: predict/unreadable is 1 instead of 0" in err


def test_equal_answers_of_a_prediction_are_reproduced(again):
    result = predicted({"predict/images": 1.0, "predict/unreadable": 0.0})
    code, out, _ = again(result, result, answers=("{}\n", "{}\n"))
    assert code == 0
    assert out.endswith("mvit: reproduced: 2 numbers and the predictions are equal to the bit\n")


def test_other_answers_of_a_prediction_are_a_difference(again):
    result = predicted({"predict/images": 1.0})
    code, _, err = again(result, result, answers=("{}\n", '{"top": []}\n'))
    assert code == 1
    assert "not reproduced: sha256 of answers.jsonl is " in err


def test_the_times_of_a_benchmark_and_a_profile_are_not_compared(again):
    first = {"benchmark/train_8x64/step_ms": 5.0, "profile/train/MatMul_pct": 40.0, "perf/peak_rss_mb": 900.0}
    code, out, err = again(benchmarked(first), benchmarked({key: value + 1 for key, value in first.items()}))
    assert (code, err) == (0, "")
    assert out.endswith("mvit: repeated: all that it measured are times, which no run repeats\n")


def test_a_fork_is_refused_before_anything_runs(again):
    made_from = Fork(folder="/runs/x/20261128-100000-cafe", step=80, run_sha256="f" * 64)
    result = predicted({"predict/images": 3.0})
    code, out, err = again(result, result, made_of={FORKED_FROM: made_from.model_dump()})
    assert (code, out) == (2, "")
    assert "20261129-100000-aaaa is a fork of 20261128-100000-cafe after step 80: " in err
    assert err.count("\n") == 1
