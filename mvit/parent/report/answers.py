"""Answers of a prediction, for a person and for other programs: a table, JSON lines, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mvit import console
from mvit.config import PredictTask
from mvit.console import shown
from mvit.files import write_bytes
from mvit.parent.report.grid import Grid
from mvit.rundir.answers import Answer, Guess, read_answers
from mvit.rundir.paths import RunDir

MAX_SHOWN = 20
"""Images in the table on a terminal."""
MAX_UNREADABLE = 10
"""Images that could not be read, each of which has a line of its own."""


def report_answers(folder: RunDir, task: PredictTask) -> None:
    """Show the first answers, name the images without one, and write the file that the task asks for."""
    answers = list(read_answers(folder))
    predicted = [answer for answer in answers if answer.error is None]
    for line in Grid(("image", "class", "probability", "then"), list(map(_row, predicted[:MAX_SHOWN]))).lines():
        console.say(f"  {line}")
    if len(predicted) > MAX_SHOWN:
        console.say(f"  ... and {len(predicted) - MAX_SHOWN} more")
    unreadable = [answer for answer in answers if answer.error is not None]
    console.complain(f"{shown(Path(answer.image))}: {answer.error}" for answer in unreadable[:MAX_UNREADABLE])
    if len(unreadable) > MAX_UNREADABLE:
        console.complain([f"... and {len(unreadable) - MAX_UNREADABLE} more that cannot be read"])
    path = folder.answers
    if task.output is not None:
        path = Path(task.output)
        try:
            write_bytes(path, _written(answers, path.suffix, top=task.top).encode("utf-8", "surrogateescape"))
        except OSError as error:
            console.complain([f"cannot write {shown(path)}: {error.strerror}; see {shown(folder.answers)}"])
            path = folder.answers
    console.say(f"mvit: {len(predicted)} images predicted, {len(unreadable)} unreadable: {shown(path)}")


def _row(answer: Answer) -> dict[str, str]:
    first, *others = answer.classes
    then = ", ".join(f"{guess.name} {100 * guess.probability:.1f} %" for guess in others[:2])
    return {
        "image": shown(Path(answer.image)),
        "class": first.name,
        "probability": f"{100 * first.probability:.2f} %",
        "then": then,
    }


def _written(answers: Sequence[Answer], suffix: str, *, top: int) -> str:
    if suffix == ".jsonl":
        return "".join(f"{answer.line()}\n" for answer in answers)
    most = max((len(answer.classes) for answer in answers), default=top)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = (f"{what}_{rank}" for rank in range(1, most + 1) for what in ("class", "probability"))
    writer.writerow(["image", "error", *names])
    writer.writerows([answer.image, answer.error or "", *_cells(answer.classes)] for answer in answers)
    return text.getvalue()


def _cells(guesses: Iterable[Guess]) -> Iterator[str]:
    for guess in guesses:
        yield from (guess.name, f"{guess.probability:g}")
