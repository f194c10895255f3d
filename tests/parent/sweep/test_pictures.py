"""The pictures of a sweep, of what its folder says."""

import pytest

from mvit.parent.sweep.outcome import SweepOutcome
from mvit.parent.sweep.pictures import draw_all

pytestmark = pytest.mark.mlflow
ONE = {"timeline", "history", "parallel_coordinates", "importances"}


@pytest.fixture
def swept(launch_here, stand_ins):
    """The folder of a sweep of stand-ins."""

    def make(*overrides, accuracy=lambda config, epoch: 1e4 * config.optimizer.lr + config.model.expansion):
        stand_ins.accuracy = accuracy
        done = launch_here(*overrides)
        assert done.code == 0, done.err
        (ledger,) = done.runs.glob("*/*/ledger.jsonl")
        return ledger.parent

    return make


@pytest.mark.parametrize(
    ("more", "names"), [((), ONE), (("sweep.objectives=[val/acc1,perf/images_per_s]",), {*ONE, "pareto_front"})]
)
def test_what_a_sweep_gives_is_drawn(swept, more, names):
    folder = swept("-m", "optimizer.lr=1e-3,2e-3,3e-3", "model=xx_small,x_small", "train.epochs=1", *more)
    for picture in folder.glob("*.png"):
        picture.unlink()
    made = draw_all(SweepOutcome(folder))
    assert {path.stem for path in made} == names
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in made)


def test_a_sweep_without_scores_has_a_timeline_alone(swept):
    folder = swept("-m", "seed=1,2", accuracy=None)
    assert [path.name for path in folder.glob("*.png")] == ["timeline.png"]
