import json
import time

import pytest

pytestmark = pytest.mark.mindspore


def test_a_loss_that_is_not_finite_names_its_steps(mindspore):
    from mvit.worker.meters import NonFinite, Window

    window = Window()
    for step, value in enumerate((1.0, float("nan"), float("inf")), 1):
        window.add(step, mindspore.Tensor(value, mindspore.float32), count=2)
    with pytest.raises(NonFinite, match="not finite at steps 2 to 3; lower optimizer.lr"):
        window.close()


def test_a_window_goes_on_from_the_numbers_of_a_checkpoint(mindspore):
    from mvit.worker.meters import Window

    first = Window()
    for step, value in ((1, 1.1), (2, 2.3)):
        first.add(step, mindspore.Tensor(value, mindspore.float32), count=2)
    kept = json.loads(json.dumps(first.values()))
    second = Window(kept)
    for window in (first, second):
        window.add(3, mindspore.Tensor(0.7, mindspore.float32), count=2)
    assert first.close() == second.close()


def test_throughput_leaves_out_the_first_steps_of_every_shape_and_what_lies_between_epochs():
    from mvit.worker.meters import WARM_STEPS, Throughput

    throughput = Throughput(synchronise=lambda: None, clocks={})

    def steps(shape, count, *, seconds):
        for _ in range(count):
            with throughput.step(4, shape=shape):
                time.sleep(seconds)

    throughput.start()
    steps(0, WARM_STEPS, seconds=0.05)
    steps(0, 5, seconds=0.01)
    steps(1, WARM_STEPS, seconds=0.05)
    steps(0, 5, seconds=0.01)
    throughput.stop()
    time.sleep(0.2)  # an evaluation
    throughput.start()
    steps(1, 5, seconds=0.01)
    throughput.stop()
    assert (throughput.steps, throughput.images) == (15, 60)
    assert 0.15 <= throughput.seconds < 0.15 + WARM_STEPS * 0.05
    assert throughput.metrics()["perf/step_ms"] == pytest.approx(10, abs=9)


def test_a_run_without_a_steady_state_has_no_throughput():
    from mvit.worker.meters import Throughput

    assert Throughput(synchronise=lambda: None, clocks={}).metrics() == {}


def test_the_share_of_what_has_a_clock_is_that_of_the_steady_steps(monkeypatch):
    from mvit.worker.meters import WARM_STEPS, Throughput

    now, spent = 0.0, 0.0
    monkeypatch.setattr("mvit.worker.meters.time.perf_counter", lambda: now)
    clocks = {"data_wait": lambda: spent, "all_reduce": lambda: 0.0, "other_load": lambda: -spent}
    throughput = Throughput(synchronise=lambda: None, clocks=clocks)
    throughput.start()
    for step in range(WARM_STEPS + 4):
        with throughput.step(8, shape=0):
            now, spent = now + 1.0, spent + (0.25 if step >= WARM_STEPS else 1.0)
    throughput.stop()
    metrics = throughput.metrics()
    assert (metrics["perf/data_wait_pct"], metrics["perf/all_reduce_pct"]) == (25.0, 0.0)
    assert metrics["perf/other_load_pct"] == 0.0, "a clock that runs backwards has no negative share"
    assert metrics["perf/images_per_s"] == 8.0
