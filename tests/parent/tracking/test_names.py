"""Names of twenty characters that differ in their first ones."""

import pytest

from mvit.files import write_json
from mvit.parent.tracking.names import LONGEST, name_of_run, name_of_sweep
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import Run
from mvit.rundir.ledger import SweepRequest
from mvit.rundir.paths import RunDir
from tests.conftest import SWEEP


@pytest.fixture
def called(configured, tmp_path):
    """The name of a run that was made by this command."""

    def name(command):
        folder = RunDir(tmp_path / "xx_small-digits" / "20261129-100000-f029")
        folder.path.mkdir(parents=True, exist_ok=True)
        write_json(folder.provenance, {"command": command})
        return name_of_run(Run(folder, configured(), LaunchPlan.model_construct()))

    return name


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("launch.py", "f029 xx_small-digits"),
        ("launch.py runs_dir=/tmp/x tracking=none", "f029 xx_small-digits"),
        ("launch.py optimizer.lr=0.001 seed=2", "f029 lr=0.001 seed=2"),
        ("launch.py model=x_small optimizer.lr=0.001", "f029 model=x_small…"),
        ("launch.py 'train.freeze=[stem.*]'", "f029 freeze=[stem.*]"),
        ("python -m mvit run FOLDER", "f029 xx_small-digits"),
        ("a 'torn command", "f029 xx_small-digits"),
        (None, "f029 xx_small-digits"),
    ],
)
def test_a_run_is_called_by_its_id_and_what_was_overridden(called, command, name):
    assert called(command) == name.replace("x_small…", "x_small …")
    assert len(name) <= LONGEST


def test_a_trial_is_called_by_its_number_and_what_distinguishes_it(configured, tmp_path):
    (tmp_path / "ledger.jsonl").touch()
    folder = RunDir(tmp_path / "07-lr=0.001,model=x_small-ab12")
    assert name_of_run(Run(folder, configured(), LaunchPlan.model_construct())) == "07 lr=0.001,model=x…"


def test_a_sweep_is_called_by_its_axes(tmp_path):
    typed = ("topology=cpu", "optimizer.lr=choice(1e-3,2e-3)", "seed=choice(1,2)")
    request = SweepRequest(argv=(), overrides=typed, sweep=SWEEP, slots=("",))
    assert name_of_sweep(tmp_path / "20261129-100000-608b", request) == "608b sweep lr,seed"
    assert name_of_sweep(tmp_path / "20261129-100000-608b", None) == "608b sweep"
