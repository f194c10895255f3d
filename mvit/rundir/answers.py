"""answers.jsonl: what task=predict says of each image, a line each, in the order in which the images were named."""

from __future__ import annotations

from collections.abc import Iterator

from mvit.config import Frozen
from mvit.rundir.paths import RunDir


class Guess(Frozen):
    """One class, and how probable it is."""

    name: str
    index: int
    """Of the network's output."""
    probability: float


class Answer(Frozen):
    """One image."""

    image: str
    """Its absolute path."""
    classes: tuple[Guess, ...] = ()
    """The most probable first."""
    error: str | None = None
    """Why the image could not be read; there are no classes then."""

    def line(self) -> str:
        """As one line of JSON, without what is empty."""
        return self.model_dump_json(exclude_defaults=True)


def read_answers(folder: RunDir) -> Iterator[Answer]:
    """Raises `OSError`, and `ValueError` for a file that is damaged."""
    with folder.answers.open(encoding="utf-8") as lines:
        for line in lines:
            yield Answer.model_validate_json(line, strict=False)
