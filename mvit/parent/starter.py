"""Starter: a first experiment on a person's images, each value with the reason for it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from mvit import console
from mvit.console import mvit_command, shown
from mvit.data import census, imagefolder, layout
from mvit.data.census import Census
from mvit.data.layout import Layout
from mvit.data.survey import Survey
from mvit.errors import ConfigError, DatasetError, Problem
from mvit.places import PROJECT

FEW, MANY = 10_000, 100_000
"""Training images up to which a set is small, and from which it is large."""
UNEQUAL = 5
"""Times that the largest class has the images of the smallest, from which accuracy says little about the latter."""
MOST_LISTED = 50
"""Classes of which each has a line in the file."""
THREADS = 8
SMALLEST, LARGEST = 64, 256
"""Sides of the network's input: below 64 its last feature map is a single pixel; 256 is what it was published with."""


@dataclass(frozen=True)
class Choice:
    """A value of the configuration; of a group, the name of its option."""

    key: str
    value: object
    why: str


def write_starter(
    folder: Path, data: Path, *, name: str, val_share: float | None, on_unreadable: Literal["refuse", "skip"]
) -> int:
    """Look at the images and write folder/experiment/name.yaml; raises `ConfigError`, and writes nothing then."""
    path = folder / "experiment" / f"{name}.yaml"
    if path.exists():
        raise ConfigError(Problem("DIR", shown(path), "already exists", "use another --name, or remove it"))
    try:
        with _layout(folder, data, val_share=val_share) as found:
            seen = _look_at(found, on_unreadable=on_unreadable)
            text = "\n".join(_lines(name, folder, found, seen, on_unreadable=on_unreadable)) + "\n"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except DatasetError as error:
        raise ConfigError(_of_the_command(error.problem, data)) from error
    except ConfigError as error:
        raise ConfigError(*(_of_the_command(problem, data) for problem in error.problems)) from error
    except OSError as error:
        remedy = "check its permissions, or use another folder"
        raise ConfigError(Problem(str(error.filename or folder), None, str(error.strerror), remedy)) from error
    _tell(name, folder, path, found, seen)
    return 0


@contextmanager
def _layout(folder: Path, data: Path, *, val_share: float | None) -> Generator[Layout]:
    """The layout; a new division is removed again where no experiment is written."""
    if val_share is None:
        yield layout.layout_of(data)
        return
    found = layout.divide(data, folder / "data", val_share=val_share)
    try:
        yield found
    except BaseException:
        shutil.rmtree(found.root)  # links alone
        raise


def _look_at(found: Layout, *, on_unreadable: Literal["refuse", "skip"]) -> Census:
    """Every image is decoded once, as the launch would, which finds the result in the cache."""
    listing = imagefolder.scan(found)
    if len(listing.classes) == 1:
        raise DatasetError(Problem("data.root", found.root, f"has one class, {listing.classes[0]}", "add another one"))
    survey = Survey(imagefolder.facts_of(found, listing), listing, on_unreadable).readable(
        training=True,
        threads=THREADS,
        cache=PROJECT / "runs" / ".readable",
        before=lambda count: console.say(f"mvit: decoding {count} images once, to find unreadable ones"),
    )
    assert survey.listing is not None
    if not survey.listing.val.paths:
        raise DatasetError(Problem("data.root", found.root, "has no readable validation image", "repair them"))
    return census.take(survey.listing, threads=THREADS)


def _of_the_command(problem: Problem, data: Path) -> Problem:
    """What the survey says about a key of the configuration, about the argument that it was made of."""
    if not problem.path.startswith("data."):
        return problem
    is_split = problem.path in ("data.train_folder", "data.val_folder")
    remedy = problem.remedy.replace("set data.on_unreadable=skip", "use --on-unreadable skip")
    return Problem("--data", str(data / problem.value) if is_split else problem.value, problem.rule, remedy)


def _choices(name: str, found: Layout, seen: Census, *, on_unreadable: Literal["refuse", "skip"]) -> Iterator[Choice]:
    """The recipe, group by group."""
    images, side = seen.num_train, seen.short_side
    size = _image_size(side)
    batch = _batch(images)
    steps = images // batch
    epochs = 100 if images < 1000 else 60 if images < FEW else 40 if images < MANY else 90
    yield _model(images)
    yield Choice("/data", "imagefolder", "folders of images, one for each class")
    yield _augment(seen)
    yield Choice("name", name, "of its runs: runs/" + name)
    yield Choice("data.root", found.root, "")
    yield Choice("data.train_folder", found.train_folder, "")
    yield Choice("data.val_folder", found.val_folder, _unused(found))
    if on_unreadable == "skip":
        yield Choice("data.on_unreadable", "skip", "as asked: a result says how many were left out")
    yield Choice("data.image_size", size, _why_size(side, size))
    if side <= size:
        why = f"nothing is cropped off: the images are no larger than {size}"
        yield Choice("data.eval_crop_fraction", 1.0, why)
    yield Choice("optimizer.lr", 1e-3, "half of the published rate, which goes with batches of 512 and more")
    yield Choice("schedule.warmup", float(max(1, epochs // 20)), "epochs: a twentieth of them")
    yield Choice("train.epochs", epochs, f"{epochs * steps} steps; the fewer the images, the more often each is seen")
    why = f"{steps} steps per epoch" + ("; topology=cpu_2 halves it between two workers" if batch > 1 else "")
    yield Choice("train.global_batch_size", batch, why)
    yield Choice("train.eval_batch_size", min(64, seen.num_val), "")
    often = min(5, max(1, math.ceil(seen.num_val / images)))
    yield Choice("train.eval_every_epochs", often, f"{seen.num_val} images to validate on, {images} to train on")
    yield Choice("train.log_every_steps", min(50, max(1, steps // 5)), "")


def _model(images: int) -> Choice:
    if images < FEW:
        return Choice("/model", "xx_small", f"{images} images: a larger network would learn them by heart")
    if images < MANY:
        return Choice("/model", "x_small", f"{images} images; xx_small takes half the time, small may be better still")
    return Choice("/model", "small", f"{images} images are enough for the largest; xx_small takes a third of the time")


def _augment(seen: Census) -> Choice:
    if not seen.is_coloured:
        return Choice("/augment", "light", "grey images may be signs or scans, which a mirror or a close crop changes")
    if seen.short_side < SMALLEST:
        return Choice("/augment", "light", f"images of {seen.short_side} pixels have nothing to spare for a close crop")
    if seen.num_train < FEW:
        return Choice(
            "/augment", "trivialaugment", "few images, varied more: crop, flip and one operation of any strength"
        )
    return Choice("/augment", "cvnets", "crop and flip, as in the authors' recipe")


def _image_size(side: int) -> int:
    return min(LARGEST, max(SMALLEST, side // 32 * 32))


def _why_size(side: int, size: int) -> str:
    if size == SMALLEST:
        return f"the smallest input that leaves the network something to see; the images have {side}"
    if size == LARGEST:
        return f"the published input; the images have {side}, and 128 takes a quarter of the time"
    return f"the largest multiple of 32 within the median of the shorter sides, {side}"


def _batch(images: int) -> int:
    """A power of two of 8 to 128 images, and at least 20 steps per epoch if it can be."""
    wanted = min(128, max(8, images // 20))
    return 2 ** int(math.log2(min(wanted, images)))


def _unused(found: Layout) -> str:
    if not found.unused:
        return ""
    last = found.unused[0]
    return f"{last} is for the end: task=evaluate task.checkpoint=RUN data.val_folder={last}"


def _lines(
    name: str, folder: Path, found: Layout, seen: Census, *, on_unreadable: Literal["refuse", "skip"]
) -> Iterator[str]:
    """The file."""
    choices = list(_choices(name, found, seen, on_unreadable=on_unreadable))
    of = {choice.key: choice.value for choice in choices}
    yield "# @package _global_"
    yield f"# question: what does a first recipe reach on {name}?"
    command = console.launch_command(*_launch(folder, name))
    yield f"# command:  {command}"
    yield f"# cost:     {of['train.epochs']} epochs of {seen.num_train} images; with dry_run=true it says how long"
    share = 100 * max(seen.val) / seen.num_val
    yield f"# expected: more than {share:.1f} %, the share of the largest class in {found.val_folder}"
    for label, fact in _facts(found, seen):
        yield f"# {label + ':':<9} {fact}"
    for warning in _warnings(found, seen):
        yield f"# warning:  {warning}"
    if len(seen.classes) <= MOST_LISTED:
        yield "# classes:  images to train on + to validate on"
        for label, train, val in zip(seen.classes, seen.train, seen.val, strict=True):
            yield f"#   {_plain(label)}: {train} + {val}"
    if seen.num_train < FEW:
        yield "# better:   weights trained on ImageNet, if you have some; so few images teach a network little:"
        yield f"#   {command} init=weights init.checkpoint=WEIGHTS optimizer.lr=2e-4"
    yield "defaults:"
    for choice in choices:
        if choice.key.startswith("/"):
            yield f"  - override {choice.key}: {choice.value}" + _comment(choice)
    rest = [choice for choice in choices if not choice.key.startswith("/")]
    yield ""
    for section, values in groupby(rest, key=lambda choice: choice.key.rpartition(".")[0]):
        if section:
            yield f"{section}:"
        for choice in values:
            key = choice.key.rpartition(".")[2]
            yield f"{'  ' if section else ''}{key}: {_as_yaml(choice.value)}" + _comment(choice)


def _comment(choice: Choice) -> str:
    return f"  # {choice.why}" if choice.why else ""


def _as_yaml(value: object) -> str:
    """JSON is YAML; `${` would be read as a reference to another value."""
    return json.dumps(value.replace("${", "\\${") if isinstance(value, str) else value)


def _plain(label: str) -> str:
    """The name of a folder as part of a line."""
    return label if label.isprintable() else json.dumps(label)


def _launch(folder: Path, name: str) -> tuple[str, ...]:
    return ("--config-dir", shown(folder), f"experiment={name}")


def _facts(found: Layout, seen: Census) -> Iterator[tuple[str, str]]:
    splits = f"{found.train_folder} {seen.num_train}, {found.val_folder} {seen.num_val} images"
    yield "data", f"{splits}, {len(seen.classes)} classes"
    (fewest, few), (most, many) = seen.smallest, seen.largest
    each = f"{few} images to train on in each class"
    unequal = f"{few} ({_plain(fewest)}) to {many} ({_plain(most)}) images to train on in a class"
    yield "balance", unequal if few < many else each
    widths, heights = sorted(one.width for one in seen.looks), sorted(one.height for one in seen.looks)
    middle = len(seen.looks) // 2
    colour = "in colour" if seen.is_coloured else "grey"
    extent = f"widths {widths[0]} to {widths[-1]}, heights {heights[0]} to {heights[-1]}"
    yield "images", f"{colour}, {widths[middle]}x{heights[middle]} in the median of {len(widths)}; {extent}"


def _warnings(found: Layout, seen: Census) -> Iterator[str]:
    (fewest, few), (_, many) = seen.smallest, seen.largest
    if many >= UNEQUAL * few:
        yield (
            f"{_plain(fewest)} has {few} images, another class {many}: accuracy says little about the small; look at"
            " confusion_matrix.png and at the accuracy by class"
        )
    if unseen := [label for label, count in zip(seen.classes, seen.val, strict=True) if not count]:
        more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        yield f"{found.val_folder} has no image of {_plain(unseen[0])}{more}: how well it is recognised is not measured"


def _tell(name: str, folder: Path, path: Path, found: Layout, seen: Census) -> None:
    console.say(f"mvit: {shown(path)} written; it says why each value was chosen")
    console.pairs(_facts(found, seen))
    console.pairs(("warning", warning) for warning in _warnings(found, seen))
    command = console.launch_command(*_launch(folder, name))
    console.say(f"mvit: see the plan with: {command} dry_run=true")
    console.say(f"mvit: train with: {command}")
    if seen.num_train < FEW:
        weights = mvit_command("weights", "SRC", "OUT")
        console.say(f"mvit: few images: fine-tune if you have weights ({weights}); the file says how")
