"""Noise: images that a task makes itself, in memory; there is nothing to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvit.config import NoiseData
from mvit.data.sample import Sample
from mvit.data.survey import Survey, make_facts
from mvit.plan import DatasetFacts


@dataclass(frozen=True)
class Noise:
    data: NoiseData

    def survey(self) -> Survey:
        names = [f"class_{index}" for index in range(self.data.classes)]
        return Survey(make_facts(num_train=0, num_val=0, class_names=names, content=[f"{self.data.classes}"]))

    def splits(self, _facts: DatasetFacts, _index: Path, /) -> tuple[Nothing, Nothing]:
        return Nothing(), Nothing()


class Nothing:
    """A split without samples."""

    in_memory = True

    def __init__(self) -> None:
        import numpy as np  # here: the parent surveys data without it

        self.labels = np.zeros(0, np.int32)

    def sample(self, index: int) -> Sample:
        raise IndexError(index)
