"""A run is made again, and is the same to the bit or is said not to be."""

import subprocess
import sys

import pytest

from mvit.files import read_json, write_json
from mvit.rundir.paths import RunDir
from tests.conftest import CHECKOUT, TINY, launcher

pytestmark = pytest.mark.mindspore
SMALL = (*TINY, "data=synthetic", "data.image_size=32", "data.num_train=64", "data.num_val=20", "data.classes=4")
SMALL = (*SMALL, "train.epochs=1", "train.global_batch_size=8", "train.eval_batch_size=10", "tracking=none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    done = launcher(tmp_path_factory)(*SMALL)
    assert done.code == 0, done.err
    return RunDir(done.folder)


def reproduce(folder):
    command = [sys.executable, "-m", "mvit", "reproduce", str(folder.path)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_a_run_is_reproduced_to_the_bit(trained):
    done = reproduce(trained)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "commit, changes, versions, data and plan are as they were" in done.stdout
    assert "numbers and the last checkpoint are equal to the bit" in done.stdout


def test_another_commit_and_another_result_are_named(trained):
    write_json(trained.provenance, {**read_json(trained.provenance), "commit": "b" * 40})
    result = read_json(trained.result)
    result["metrics"]["val/acc1"] += 5.0
    write_json(trained.result, result)
    done = reproduce(trained)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "mvit: what is not as it was:"
    assert lines[1].startswith(f"  commit: {'b' * 12} then, ")
    assert "not reproduced: val/acc1 is " in done.stderr
    assert "mvit: all differences: python -m mvit diff " in done.stdout


def test_what_has_not_finished_is_refused(trained):
    trained.result.unlink()
    done = reproduce(trained)
    assert (done.returncode, done.stdout) == (2, "")
    assert "only what has finished can be reproduced" in done.stderr
