"""A sweep in the pages of results: what it compared, and its front."""

import pytest

from mvit.errors import RunDirError
from mvit.parent.report.publication import pages, publish_sweep
from mvit.parent.sweep import published
from mvit.parent.sweep.published import published_sweep

pytestmark = pytest.mark.mlflow  # the pictures
TWO = ("sweep.objectives=[val/acc1,perf/images_per_s]", "name=other")


@pytest.fixture
def swept(launch_here, stand_ins):
    """The folder of a sweep of two trials; the faster one is less accurate."""

    def make(*overrides):
        stand_ins.accuracy = lambda config, epoch: 1e4 * config.optimizer.lr
        done = launch_here("-m", "optimizer.lr=1e-3,2e-3", "train.epochs=1", *overrides)
        assert done.code == 0, done.err
        (ledger,) = done.runs.glob("*/*/ledger.jsonl")
        return ledger.parent

    return make


def found(root):
    return {path.name for path, text in pages(root).items() if path.read_text() != text}


def test_a_sweep_is_published_with_its_front_and_picture(swept, pages_root, monkeypatch):
    monkeypatch.setattr(published, "verdict", lambda record: "yes")
    header = pages_root / "experiments/other.yaml"
    header.write_text("# found:    nothing\n" + header.read_text())
    publish_sweep(*published_sweep(swept(*TWO)), name="other", root=pages_root)
    page = (pages_root / "docs/results.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "lr=" in line]
    assert len(rows) == 2
    assert "20.00" in rows[0]
    assert rows[0].startswith("| best")
    assert "2 trials, 2 FINISHED" in page
    assert "![other](pictures/other.png)" in page
    assert (pages_root / "docs/pictures/other.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "lr=" not in (pages_root / "README.md").read_text()
    assert "# found:    val/acc1 20.00 %, perf/images_per_s " in header.read_text()
    assert found(pages_root) == set()
    header.write_text(header.read_text().replace("20.00", "21.00"))
    assert found(pages_root) == {"other.yaml"}


def test_a_speed_that_may_not_be_believed_is_no_objective(swept, pages_root, monkeypatch):
    monkeypatch.setattr(published, "verdict", lambda record: "not the speed")
    sweep, picture = published_sweep(swept(*TWO))
    assert (sweep.objectives, picture) == (["val/acc1"], None)
    assert [trial.is_best for trial in sweep.trials] == [True, False], "not both, as on the front"
    publish_sweep(sweep, picture, name="other", root=pages_root)
    assert "perf/images_per_s" not in (pages_root / "docs/results.md").read_text()


def test_a_sweep_of_speeds_that_may_not_be_believed_is_refused(swept, monkeypatch):
    monkeypatch.setattr(published, "verdict", lambda record: "not the speed")
    with pytest.raises(RunDirError, match="has no trial with a result that may be believed"):
        published_sweep(swept("sweep.objectives=[perf/images_per_s]"))


def test_a_trial_that_may_not_be_believed_refuses_the_sweep(swept, monkeypatch):
    monkeypatch.setattr(published, "verdict", lambda record: "no")
    folder = swept(*TWO)
    with pytest.raises(RunDirError, match="may not be believed; python -m mvit check says why"):
        published_sweep(folder)
