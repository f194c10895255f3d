"""A run whose workers are killed and that is resumed ends with the bits of one that was left alone."""

import json
import os
import random
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e.test_resume import Room, ended, read

pytestmark = [pytest.mark.mindspore, pytest.mark.timeout(900)]

KILLS = int(os.environ.get("MVIT_KILLS", "1"))
"""20 is what the claim was tested with; one takes half a minute."""
RICH = ("train.epochs=6", "train.checkpoint_every_steps=7", "train.log_every_steps=3", "augment=mixup_cutmix")
RICH = (*RICH, "train.ema_momentum=0.1", "tracking=none")
SCALED = ("precision=O2", "precision.loss_scale.growth_steps=15")
"""On one worker alone: half precision doubles the time of a compilation."""


def last(folder):
    name = read(folder / "checkpoints" / "last.json")["file"]
    return load_file(folder / "checkpoints" / f"{name}.safetensors")


def results(folder):
    """What the journal says of the training itself: everything but times."""
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        (entry["step"], entry["epoch"], {k: v for k, v in entry["metrics"].items() if not k.startswith("perf/")})
        for entry in entries
        if "metrics" in entry
    ]


@pytest.mark.parametrize(("topology", "more"), [("cpu", SCALED), ("cpu_2", ())])
def test_a_killed_and_resumed_run_ends_bit_for_bit_as_one_left_alone(tmp_path, topology, more):
    rooms = [Room(tmp_path / name) for name in ("whole", "killed")]
    for room in rooms:
        room.path.mkdir()
    whole = ended(rooms[0], rooms[0].start(f"topology={topology}", *RICH, *more))
    assert whole.code == 0, whole.err

    chosen = random.Random(os.urandom(8))
    at = sorted(chosen.randrange(2, 110) for _ in range(KILLS))
    killed_at = []
    process = rooms[1].start(f"topology={topology}", *RICH, *more)
    for step in at:
        folder = rooms[1].wait_for_step(max(3, step - step % 3))
        time.sleep(chosen.random())
        worker = read(folder.status / f"{chosen.randrange(int(topology == 'cpu_2') + 1)}.json")
        try:
            os.kill(worker["pid"], signal.SIGKILL)
        except ProcessLookupError:
            break  # it came to its end before
        done = ended(rooms[1], process)
        killed_at.append(worker["step"])
        assert done.code == 1, done.err
        assert read(folder.error)["kind"] == "killed"
        process = rooms[1].begin_resume(folder.path)
    done = ended(rooms[1], process)
    assert done.code == 0, done.err

    a, b = last(whole.folder), last(done.folder)
    assert set(a) == set(b)
    different = [name for name in a if (a[name].view(np.int32) != b[name].view(np.int32)).any()]
    print(f"{topology}: killed near steps {killed_at}; {len(a)} tensors, {len(different)} of them differ")
    assert not different
    assert results(whole.folder) == results(done.folder)
