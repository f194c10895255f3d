import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mvit.config import TrainRun
from mvit.data.generated import write_image_folder
from mvit.parent.request.check import parse
from mvit.process import memory_file, process_start, wait_for_end
from mvit.worker.input.loader import DataProcessDied, Loader, MicroBatch
from mvit.worker.input.prepare import UnreadableImage
from tests.conftest import CHECKOUT, open_data, raw_config

pytestmark = pytest.mark.mindspore  # its operators resize


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("pictures") / "images", train=24, val=10, size=(90, 70))


def opened(*overrides):
    config = parse(raw_config("data.image_size=40", *overrides))
    assert isinstance(config, TrainRun)
    return config, *open_data(config.data)


def batches(config, source, parts, *, workers=1, epoch=1, seed=1):
    data = config.data.model_copy(update={"workers": workers})
    largest = max(len(indices) * size**2 for indices, _, size in parts)
    loader = Loader(data, augment=config.augment, seed=seed, largest=largest, in_memory=source.in_memory)
    wanted = [MicroBatch(np.array(indices), np.array(views), size) for indices, views, size in parts]
    found = [batch.images.copy() for batch in loader.train(source, iter(wanted), epoch=epoch)]
    loader.close()
    return found


@pytest.mark.parametrize("kind", ["digits", "imagefolder"])
def test_a_view_has_the_same_pixels_at_any_position_and_for_any_number_of_workers(kind, pictures):
    root = [f"data.root={pictures}"] if kind == "imagefolder" else []
    config, train, _ = opened(f"data={kind}", *root, "augment=mindcv")

    def pixels(indices, *, views=None, **key):
        (found,) = batches(config, train, [(indices, views or [0] * len(indices), 40)], **key)
        return found

    one = pixels([5, 9, 11], workers=1)
    assert one.shape == (3, 40, 40, 3)
    assert (pixels([11, 5], workers=3) == one[[2, 0]]).all()
    assert (pixels([5], epoch=2) != one[:1]).any()
    assert (pixels([5], seed=2) != one[:1]).any()
    assert (pixels([5], views=[1]) != one[:1]).any()


def test_batches_of_many_sizes_come_in_order_with_their_own_pixels(pictures):
    config, train, _ = opened("data=imagefolder", f"data.root={pictures}", "augment=cvnets")
    sizes = [32, 48, 64, 40, 32, 48, 64, 40, 32]
    parts = [([i, i + 1, i + 2], [0, 0, 0], size) for i, size in enumerate(sizes)]
    together = batches(config, train, parts, workers=2)
    assert [batch.shape[1] for batch in together] == sizes
    for part, batch in zip(parts[::4], together[::4], strict=True):
        assert (batches(config, train, [part])[0] == batch).all()


def test_evaluation_masks_what_the_samples_do_not_fill(pictures):
    config, _, val = opened("data=imagefolder", f"data.root={pictures}", "data.workers=2")
    loader = Loader(config.data, augment=config.augment, seed=1, largest=4 * 40**2, in_memory=False)
    found = [
        (batch.images.copy(), batch.labels, batch.mask)
        for batch in loader.evaluate(val, np.arange(10), batch_size=4, num_batches=4)
    ]
    loader.close()
    assert [list(mask) for *_, mask in found] == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert (np.concatenate([labels for _, labels, _ in found])[:10] == val.labels).all()
    assert not found[2][0][2:].any()


def test_an_epoch_that_is_left_early_writes_into_no_later_batch(pictures):
    config, train, val = opened("data=imagefolder", f"data.root={pictures}", "data.workers=2")
    loader = Loader(config.data, augment=config.augment, seed=1, largest=8 * 40**2, in_memory=False)
    parts = [MicroBatch(np.arange(8) + i, np.zeros(8, int), 40) for i in range(12)]
    ended = loader.train(train, iter(parts), epoch=1)
    next(ended)
    ended.close()
    found = [batch.images.copy() for batch in loader.evaluate(val, np.arange(10), batch_size=5, num_batches=2)]
    again = [batch.images.copy() for batch in loader.evaluate(val, np.arange(10), batch_size=5, num_batches=2)]
    loader.close()
    assert all((a == b).all() for a, b in zip(found, again, strict=True))


def test_a_file_that_breaks_later_is_named_with_its_path(tmp_path):
    root = write_image_folder(tmp_path / "images", train=8, val=4, size=(60, 50))
    config, train, _ = opened("data=imagefolder", f"data.root={root}")
    broken = Path(train.sample(1).name)
    broken.write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=f"{broken} cannot be decoded: cannot identify image file"):
        batches(config, train, [([0, 1], [0, 0], 40)])


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
            except OSError:
                continue
    return [child for one in found for child in (one, *children_of(one))]


LOADS = """
import sys, time
import numpy as np
from tests.worker.test_loader import Loader, MicroBatch, opened
if __name__ == "__main__":
    config, train, _ = opened("data=imagefolder", f"data.root={sys.argv[1]}", "data.workers=2")
    loader = Loader(config.data, augment=config.augment, seed=1, largest=8 * 40**2, in_memory=False)
    found = loader.train(train, (MicroBatch(np.arange(8), np.zeros(8, int), 40) for _ in range(10**9)), epoch=1)
    for number, _ in enumerate(found):
        if number == 3:
            print("running", flush=True)
        if number > 3:
            time.sleep(0.01)
"""


@pytest.fixture
def loading(pictures, tmp_path):
    """A process that loads for ever, with its processes."""
    script = tmp_path / "loads.py"
    script.write_text(LOADS)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "GLOG_v": "3"}
    command = [sys.executable, str(script), str(pictures)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    yield process
    process.kill()
    process.communicate()


def test_the_processes_end_with_the_one_they_work_for_even_when_it_is_killed(loading):
    helpers = children_of(loading.pid)
    assert len(helpers) >= 3, "two processes and their server"
    loading.kill()
    loading.wait()
    deadline = time.monotonic() + 20
    while any(process_start(pid) for pid in helpers):
        assert time.monotonic() < deadline, "left behind"
        time.sleep(0.05)


def test_the_processes_give_way_to_the_one_they_work_for(loading):
    own = os.getpriority(os.PRIO_PROCESS, loading.pid)
    at_work = [pid for pid in children_of(loading.pid) if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    deadline = time.monotonic() + 20
    while sorted(os.getpriority(os.PRIO_PROCESS, pid) for pid in at_work) != [own, 19, 19]:
        assert time.monotonic() < deadline, "the server keeps its priority, the two that it forked give way"
        time.sleep(0.05)


def test_a_process_that_dies_is_an_error_that_says_so(loading):
    at_work = [pid for pid in children_of(loading.pid) if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(max(at_work), signal.SIGKILL)  # the server is the oldest
    _, err = loading.communicate(timeout=30)
    assert loading.returncode == 1
    assert f"{DataProcessDied.__name__}: a process that prepares images died" in err


def test_an_older_python_shares_memory_and_sees_the_end_of_its_owner(monkeypatch):
    """Conda's is built on a system that has neither call."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.delattr(os, "pidfd_open")
    descriptor = memory_file("test")
    os.ftruncate(descriptor, 4096)
    with open(f"/proc/{os.getpid()}/fd/{descriptor}", "r+b") as file:  # noqa: PTH123
        file.write(b"shared")
    assert os.pread(descriptor, 6, 0) == b"shared"
    os.close(descriptor)

    owner = subprocess.Popen(["sleep", "600"])
    waiting = threading.Thread(target=wait_for_end, args=(owner.pid,), daemon=True)
    waiting.start()
    waiting.join(1.2)
    assert waiting.is_alive()
    owner.kill()
    owner.wait()
    waiting.join(10)
    assert not waiting.is_alive()
