"""What a look at data ends in: its facts, or the error that says why it cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from mvit.errors import Problem
from mvit.plan import DatasetFacts


class DatasetError(Exception):
    """Data that cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def facts(*, num_train: int, num_val: int, class_names: Sequence[str], content: Iterable[str]) -> DatasetFacts:
    """The facts; `content` are the lines whose sha256 is the fingerprint."""
    digest = hashlib.sha256()
    for line in content:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return DatasetFacts(
        num_train=num_train,
        num_val=num_val,
        class_names=tuple(class_names),
        fingerprint=digest.hexdigest(),
        skipped=(),
    )
