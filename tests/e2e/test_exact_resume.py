"""A run whose processes are killed and that is resumed ends with the bits of one that was left alone."""

import os
import random
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
from safetensors.numpy import load_file

from mvit.files import read_json
from tests.conftest import of_training
from tests.scene import RECIPE, Scene

KILLS = int(os.environ.get("MVIT_KILLS", "1"))
"""20 is what the claim was tested with; one takes half a minute."""
pytestmark = [pytest.mark.mindspore, pytest.mark.timeout(900 + 60 * KILLS)]

RICH = (*RECIPE, "train.epochs=6", "train.checkpoint_every_steps=7", "train.log_every_steps=3", "augment=mixup_cutmix")
RICH = (*RICH, "train.ema_momentum=0.1", "model.dropout=0.1", "tracking=none")
SCALED = ("precision=O2", "loss_scale=dynamic", "loss_scale.growth_steps=15") if KILLS > 1 else ()
"""On one worker alone, and where it is killed many times: half precision has no fused kernels, and compiles slowly."""


def last(folder):
    return load_file(folder.checkpoints / f"{read_json(folder.checkpoints / 'last.json')['file']}.safetensors")


def results(scene):
    """What the journal says of the training itself: everything but times."""
    return [(entry["step"], entry["epoch"], metrics) for entry, metrics in of_training(scene.journal())]


@pytest.mark.long
@pytest.mark.parametrize(("topology", "more"), [("cpu", SCALED), ("cpu_2", ())])
def test_a_killed_and_resumed_run_ends_bit_for_bit_as_one_left_alone(tmp_path, topology, more):
    recipe = (*RICH, f"topology={topology}", *more)
    whole, scene = Scene(tmp_path / "whole", recipe=recipe), Scene(tmp_path / "killed", recipe=recipe)
    whole.launch().end()
    assert whole.process.returncode == 0, whole.err

    chosen = random.Random(os.urandom(8))
    killed = []
    scene.launch()
    for step in sorted(chosen.randrange(2, 85) for _ in range(KILLS)):
        # Half of them while it starts, compiles or evaluates, half of them for sure while it trains.
        stages = chosen.choice([("step",), ("start", "join", "data", "build", "compile", "step", "evaluate")])
        while True:
            here = scene.until(
                lambda: (
                    scene.steps()[-1:] >= [step - step % 3 or 3]  # noqa: B023
                    and (of_rank_0 := scene.statuses().get(0))
                    and of_rank_0.stage in stages  # noqa: B023
                    and of_rank_0
                )
            )
            time.sleep(0.4 * chosen.random())
            victim = chosen.choice(["launcher", *(f"rank {rank}" for rank in scene.statuses() if rank >= 0)])
            with suppress(ProcessLookupError, KeyError):  # a worker of the attempt before, which has just gone
                scene.kill(victim)
                break
        scene.end()
        killed.append(f"{victim} in {here.stage} {here.step}")
        assert scene.process.returncode == (-signal.SIGKILL if victim == "launcher" else 1), scene.err
        assert victim == "launcher" or read_json(scene.folder.error)["kind"] == "killed"
        scene.resume()
    scene.end()
    assert scene.process.returncode == 0, scene.err

    assert len(killed) == KILLS
    a, b = last(whole.folder), last(scene.folder)
    assert set(a) == set(b)
    different = [name for name in a if (a[name].view(np.int32) != b[name].view(np.int32)).any()]
    print(f"{topology}: {len(killed)} kills ({', '.join(killed)}); {len(a)} tensors, {len(different)} of them differ")
    assert not different
    assert results(whole) == results(scene)
