"""Data benchmark: images per second of our pipeline, a plain Pillow + NumPy loop, and MindSpore's own pipeline.

    python benchmarks/data.py [--images 600] [--rounds 5] [--markdown] [--folder FOLDER]

Each candidate runs in its own process and takes a turn in each round, so that other work on the machine affects all of
them. A measurement starts once the first batch has arrived and ends while more are being prepared: it excludes start-up
and draining. CPU time covers all processes of a candidate over the same span.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image, ImageEnhance

from mvit.data import dataset, pack
from mvit.worker.input import transforms

CHECKOUT = Path(__file__).resolve().parents[1]
SIZE = 256
BATCH = 64
IMAGE = (500, 375)
SEED = 1
CHUNK = 16
"""Images that a process of the plain loop prepares per task: as many as the loader's."""
STAGES = ("decode", "crop + resize", "flip", "jitter", "erase")
Kind = Literal["folder", "mindrecord", "plain", "plain float", "mindspore"]
NAMES: dict[Kind, str] = {
    "folder": "mvit, image folder",
    "mindrecord": "mvit, MindRecord",
    "plain": "Pillow + NumPy loop",
    "plain float": "Pillow + NumPy loop",
    "mindspore": "MindSpore's pipeline",
}
RESULTS: dict[Kind, str] = {
    "folder": "uint8 HWC",
    "mindrecord": "uint8 HWC",
    "plain": "uint8 HWC",
    "plain float": "normalised float32 CHW",
    "mindspore": "normalised float32 CHW",
}


@dataclass(frozen=True)
class Candidate:
    """A way to prepare images, and its number of processes (in MindSpore's pipeline: threads)."""

    kind: Kind
    workers: int


@dataclass(frozen=True)
class Data:
    """The same images, as files and as shards."""

    images: Path
    packed: Path

    @property
    def paths(self) -> list[str]:
        return sorted(str(path) for path in (self.images / "train").rglob("*.jpg"))


@dataclass(frozen=True)
class Round:
    """The measurement of one turn of a candidate."""

    images: int
    wall_s: float
    cpu_s: float


@dataclass
class Measurements:
    """All turns of a candidate."""

    startup_s: float
    rounds: list[Round] = field(default_factory=list)

    def rates(self) -> list[float]:
        """Images per second."""
        return [one.images / one.wall_s for one in self.rounds]

    def rates_per_core(self) -> list[float]:
        """Images per second of CPU time."""
        return [one.images / one.cpu_s for one in self.rounds]


Stream = Callable[[], AbstractContextManager[Iterator[int]]]
"""Opens an endless stream; each item is the number of images that became ready."""


# mvit ------------------------------------------------------------------------------------------------------------


@contextmanager
def loader(candidate: Candidate, data: Data) -> Iterator[Stream]:
    """Batches as the training loop receives them."""
    from mvit.config import AugmentConfig, ImageFolderData, MindRecordData
    from mvit.worker.input.loader import Loader, MicroBatch
    from mvit.worker.input.sampler import epoch_order

    changes = {"workers": candidate.workers, "image_size": SIZE, "antialias": False}
    if candidate.kind == "folder":
        config = ImageFolderData.model_validate(
            {**conf("data/imagefolder"), **changes, "root": str(data.images), "antialias": False}
        )
    else:
        config = MindRecordData.model_validate(
            {**conf("data/mindrecord"), **changes, "root": str(data.packed), "antialias": False}
        )
    augment = AugmentConfig.model_validate(conf("augment/mindcv"))
    survey = dataset.survey(config)
    with tempfile.TemporaryDirectory() as room:
        index = Path(room) / "data.npz"
        survey.write_index(index)
        train, _ = dataset.open_splits(config, facts=survey.facts, index=index)
    made = Loader(config, augment=augment, seed=SEED, largest=BATCH * SIZE**2, in_memory=train.in_memory)

    def parts() -> Iterator[MicroBatch]:
        order = cycle(epoch_order(len(train.labels), seed=SEED, epoch=1).indices.tolist())
        while True:
            yield MicroBatch(np.array(list(islice(order, BATCH))), np.zeros(BATCH, int), SIZE)

    @contextmanager
    def stream() -> Iterator[Iterator[int]]:
        with closing(made.train(train, parts(), epoch=1)) as batches:
            yield (len(batch.images) for batch in batches)

    try:
        yield stream
    finally:
        # Not close(), which does not wait: if this process exits meanwhile, multiprocessing closes the pool's queue and
        # then waits forever for workers that were never told to stop.
        made.pool.shutdown()


def conf(name: str) -> dict[str, Any]:
    return yaml.safe_load((CHECKOUT / "conf" / f"{name}.yaml").read_text())


# The plain loop: the same work, written with Pillow and NumPy --------------------------------------------------


@contextmanager
def plain(candidate: Candidate, data: Data) -> Iterator[Stream]:
    """Processes that fill arrays and discard them: the rate excludes the cost of passing them on."""
    paths = data.paths
    chunks = [paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)]
    as_float = candidate.kind == "plain float"

    @contextmanager
    def stream() -> Iterator[Iterator[int]]:
        waiting: deque[Future[int]] = deque()

        def ready() -> Iterator[int]:
            for chunk in cycle(chunks):
                waiting.append(pool.submit(plain_chunk, chunk, as_float))
                if len(waiting) > 4 * candidate.workers:
                    yield waiting.popleft().result()

        yield ready()
        wait(future for future in waiting if not future.cancel())

    with ProcessPoolExecutor(candidate.workers, multiprocessing.get_context("spawn")) as pool:
        yield stream


def plain_chunk(paths: list[str], as_float: bool) -> int:
    random = plain_random()
    rows = np.empty((len(paths), 3, SIZE, SIZE), np.float32) if as_float else None
    bytes_ = np.empty((len(paths), SIZE, SIZE, 3), np.uint8)
    for number, path in enumerate(paths):
        bytes_[number] = plain_erase(
            plain_jitter(plain_flip(plain_crop(plain_decode(path), random), random), random), random
        )
        if rows is not None:
            mean, std = normalisation()
            rows[number] = ((bytes_[number] - mean) / std).transpose(2, 0, 1)
    return len(paths)


@cache
def plain_random() -> np.random.Generator:
    return np.random.default_rng(os.getpid())


@cache
def normalisation() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the channels, 0 to 255."""
    config = conf("data/imagefolder")
    return 255 * np.array(config["mean"], np.float32), 255 * np.array(config["std"], np.float32)


def plain_decode(path: str) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def plain_crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    left, top, width, height = rectangle(image.size, (0.08, 1.0), (3 / 4, 4 / 3), random)
    box = (left, top, left + width, top + height)
    return image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)


def plain_flip(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def plain_jitter(image: Image.Image, random: np.random.Generator) -> Image.Image:
    changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for position in random.permutation(len(changes)):
        image = changes[position](image).enhance(random.uniform(0.6, 1.4))
    return image


def plain_erase(image: Image.Image, random: np.random.Generator) -> np.ndarray:
    rows = np.array(image)
    left, top, width, height = rectangle((SIZE, SIZE), (0.02, 0.33), (0.3, 3.3), random)
    rows[top : top + height, left : left + width] = normalisation()[0].astype(np.uint8)
    return rows


def rectangle(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, width, height."""
    columns, rows = size
    for _ in range(10):
        area = columns * rows * random.uniform(*scale)
        drawn = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(area * drawn)), round(math.sqrt(area / drawn))
        if width <= columns and height <= rows:
            return int(random.integers(columns - width + 1)), int(random.integers(rows - height + 1)), width, height
    return 0, 0, columns, rows


# MindSpore's pipeline --------------------------------------------------------------------------------------------


@contextmanager
def mindspore_pipeline(candidate: Candidate, data: Data) -> Iterator[Stream]:
    """The recipe as MindCV builds it; random numbers depend on the thread, not on the index of the image."""
    import mindspore.dataset as ds
    from mindspore.dataset import vision

    mean, std = normalisation()
    operators = [
        vision.RandomCropDecodeResize(SIZE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
        vision.RandomHorizontalFlip(0.5),
        vision.RandomColorAdjust(brightness=0.4, contrast=0.4, saturation=0.4),
        vision.Normalize(mean.tolist(), std.tolist()),
        vision.HWC2CHW(),
        vision.RandomErasing(1.0, scale=(0.02, 0.33), ratio=(0.3, 3.3)),
    ]
    files = ds.ImageFolderDataset(
        str(data.images / "train"), num_parallel_workers=candidate.workers, shuffle=True, decode=False
    )
    mapped = files.map(operators, "image", num_parallel_workers=candidate.workers)
    batches = mapped.batch(BATCH, drop_remainder=True, num_parallel_workers=1).repeat(1000)

    @contextmanager
    def stream() -> Iterator[Iterator[int]]:
        iterator = batches.create_tuple_iterator(num_epochs=1, output_numpy=True, do_copy=False)
        yield (len(image) for image, _ in iterator)
        iterator.stop()

    yield stream


MAKERS: dict[Kind, Callable[[Candidate, Data], AbstractContextManager[Stream]]] = {
    "folder": loader,
    "mindrecord": loader,
    "plain": plain,
    "plain float": plain,
    "mindspore": mindspore_pipeline,
}

# Measuring -------------------------------------------------------------------------------------------------------


def live(candidate: Candidate, data: Data, turns: Connection, images: int) -> None:
    """A candidate's process: reports its start-up time, then takes a turn on each request."""
    os.setpgid(0, 0)  # its processes are identified by their group
    began = time.perf_counter()
    with MAKERS[candidate.kind](candidate, data) as stream:
        with stream() as ready:
            next(ready)
        turns.send(time.perf_counter() - began)
        with suppress(EOFError):  # no more turns
            while turns.recv():
                turns.send(turn(stream, images))


def turn(stream: Stream, images: int) -> Round:
    with stream() as ready:
        first = count = 0
        while first < BATCH:
            first += next(ready)
        group = processes()
        began, cpu_began = time.perf_counter(), cpu_s(group)
        while count < images:
            count += next(ready)
        return Round(count, time.perf_counter() - began, cpu_s(group) - cpu_began)


def processes() -> list[Path]:
    """The /proc stat file of each process in this group."""
    group, paths = str(os.getpgid(0)), []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has exited
            if path.read_text().rpartition(")")[2].split()[2] == group:
                paths.append(path)
    return paths


def cpu_s(group: list[Path]) -> float:
    """User and system time of the processes so far."""
    ticks = 0
    for path in group:
        fields = path.read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(data: Data, *, images: int, rounds: int) -> dict[Candidate, Measurements]:
    context = multiprocessing.get_context("spawn")
    measurements: dict[Candidate, Measurements] = {}
    connections: dict[Candidate, Connection] = {}
    with ExitStack() as opened:  # closing a connection ends its process
        for candidate in (Candidate(kind, workers) for kind in NAMES for workers in (1, 2)):
            connection, other = context.Pipe()
            opened.enter_context(connection)
            context.Process(target=live, args=(candidate, data, other, images)).start()
            other.close()
            connections[candidate] = connection
            measurements[candidate] = Measurements(startup_s=connection.recv())
            report(f"{NAMES[candidate.kind]}, {candidate.workers}: ready")
        for number in range(rounds):
            # A different order in each round: no candidate always follows the same one.
            for place in np.random.default_rng(number).permutation(len(connections)):
                candidate = list(connections)[place]
                connections[candidate].send(True)
                measurements[candidate].rounds.append(connections[candidate].recv())
            report(f"round {number + 1} of {rounds}")
    return measurements


def stages(data: Data, *, images: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds per image in each stage, ours and the plain loop's, once per round."""
    from mvit.config import AugmentConfig
    from mvit.data.sample import File

    config = AugmentConfig.model_validate(conf("augment/mindcv"))
    crop, color_jitter, erasing = config.crop, config.color_jitter, config.erasing
    assert crop
    assert color_jitter
    assert erasing
    resize: dict[str, Any] = {"interpolation": "bilinear", "antialias": False}
    fill = (124, 116, 104)
    random = np.random.default_rng(SEED)
    clock = time.perf_counter

    def ours(path: str) -> list[float]:
        times = [clock()]
        with File(path).open() as picture:
            top, left, height, width = transforms.random_crop(picture.size[::-1], crop, random)
            box = (left, top, left + width, top + height)
            decoded, box = transforms.decode_for(picture, box, size=SIZE)
        times.append(clock())
        image = transforms._resize(decoded, (SIZE, SIZE), box=box, **resize)
        times.append(clock())
        image = transforms._flip(image)
        times.append(clock())
        image = transforms.jitter(image, color_jitter, random)
        times.append(clock())
        transforms.erase(image, erasing, fill=fill, random=random)
        return [*times, clock()]

    def theirs(path: str) -> list[float]:
        times = [clock()]
        image = plain_decode(path)
        times.append(clock())
        image = plain_crop(image, random)
        times.append(clock())
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        times.append(clock())
        image = plain_jitter(image, random)
        times.append(clock())
        plain_erase(image, random)
        return [*times, clock()]

    times_ms: dict[str, list[tuple[float, float]]] = {stage: [] for stage in STAGES}
    paths = data.paths[:images]
    ours(paths[0])  # loads MindSpore's operators
    for _ in range(rounds):
        spent = np.array([[np.diff(ours(path)), np.diff(theirs(path))] for path in paths])  # (images, 2, stages)
        for stage, (of_ours, of_theirs) in zip(STAGES, 1e3 * spent.mean(0).T, strict=True):
            times_ms[stage].append((float(of_ours), float(of_theirs)))
    return times_ms


# Output -------------------------------------------------------------------------------------------------------


def spread(values: list[float], digits: int = 0) -> str:
    """Median, minimum and maximum."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def rates_table(measurements: dict[Candidate, Measurements]) -> list[list[str]]:
    table = [["pipeline", "result", "workers", "img/s", "ratio", "img per CPU s", "cores", "start-up s"]]
    for candidate, measured in measurements.items():
        baseline = measurements[Candidate("plain", candidate.workers)]
        ratios = [ours / theirs for ours, theirs in zip(measured.rates(), baseline.rates(), strict=True)]
        cores = [one.cpu_s / one.wall_s for one in measured.rounds]
        table.append(
            [
                NAMES[candidate.kind],
                RESULTS[candidate.kind],
                str(candidate.workers),
                spread(measured.rates()),
                spread(ratios, 2),
                spread(measured.rates_per_core()),
                f"{median(cores):.2f}",
                f"{measured.startup_s:.1f}",
            ]
        )
    return table


def scaling_table(measurements: dict[Candidate, Measurements]) -> list[list[str]]:
    table = [["pipeline", "result", "2 workers / 1 worker"]]
    for kind in NAMES:
        one, two = measurements[Candidate(kind, 1)].rates(), measurements[Candidate(kind, 2)].rates()
        ratios = [b / a for a, b in zip(one, two, strict=True)]
        table.append([NAMES[kind], RESULTS[kind], spread(ratios, 2)])
    return table


def stages_table(times_ms: dict[str, list[tuple[float, float]]]) -> list[list[str]]:
    table = [["stage", "mvit, ms", "Pillow + NumPy, ms"]]
    columns = {stage: tuple(list(column) for column in zip(*times_ms[stage], strict=True)) for stage in STAGES}
    table += [[stage, spread(ours, 2), spread(theirs, 2)] for stage, (ours, theirs) in columns.items()]
    sums = [f"{sum(median(column[side]) for column in columns.values()):.2f}" for side in (0, 1)]
    return [*table, ["all", *sums]]


def show(table: list[list[str]], *, markdown: bool) -> None:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    rows = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table]
    if markdown:
        rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print(f"| {' | '.join(row)} |" if markdown else "  ".join(row).rstrip())
    print()


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    packages = ", ".join(f"{name} {version(name)}" for name in ("mindspore", "pillow", "numpy"))
    git = ["git", "describe", "--always", "--dirty= with changes", "--exclude=*"]
    commit = subprocess.run(git, cwd=CHECKOUT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores; Python {platform.python_version()}, {packages}; commit {commit}"


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def prepared(folder: Path, images: int) -> Data:
    from mvit.data.generated import write_image_folder

    data = Data(folder / f"images-{images}", folder / f"packed-{images}")
    if not data.images.exists():
        write_image_folder(data.images, train=images, val=4, size=IMAGE)
    source = pack.Origin(str(data.images), "train", "val", None)
    with redirect_stdout(sys.stderr):  # standard output is reserved for the tables
        pack.pack(source, data.packed, shards=1, on_unreadable="refuse", workers=2, overwrite=False)
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second of the data pipeline.")
    parser.add_argument("--images", type=int, default=600, help="number of images, and images per turn (default 600)")
    parser.add_argument("--rounds", type=int, default=5, help="turns per candidate (default 5)")
    parser.add_argument("--folder", type=Path, help="folder in which to keep the images (default: temporary)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    arguments = parser.parse_args()
    os.environ.setdefault("GLOG_v", "3")  # MindSpore: errors only
    with tempfile.TemporaryDirectory() as temporary:
        data = prepared(arguments.folder or Path(temporary), arguments.images)
        measurements = measure(data, images=arguments.images, rounds=arguments.rounds)
        of_stages = stages(data, images=arguments.images // 4, rounds=arguments.rounds)
    print(
        f"{machine()}\n{arguments.images} JPEGs of {IMAGE[0]}x{IMAGE[1]}, {arguments.rounds} rounds: median (min-max)\n"
    )
    for table in (rates_table(measurements), scaling_table(measurements), stages_table(of_stages)):
        show(table, markdown=arguments.markdown)


if __name__ == "__main__":
    main()
