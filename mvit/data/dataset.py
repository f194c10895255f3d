"""Dataset: surveyed in the parent, opened as samples in the workers. No image is decoded here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from mvit.config import (
    Cifar10Data,
    Cifar100Data,
    Data,
    DigitsData,
    FilesData,
    ImageFolderData,
    MindRecordData,
    NoiseData,
    SyntheticData,
)
from mvit.data.cifar import Cifar
from mvit.data.digits import Digits
from mvit.data.imagefolder import ImageFolder
from mvit.data.mindrecord import MindRecord
from mvit.data.noise import Noise
from mvit.data.source import Source
from mvit.data.survey import Survey
from mvit.data.synthetic import Synthetic
from mvit.data.unlabelled import Unlabelled
from mvit.plan import DatasetFacts


class Dataset(Protocol):
    """One dataset, as it is configured."""

    def survey(self) -> Survey:
        """Look at the data once, in the parent and without NumPy; raises `DatasetError`."""
        ...

    def splits(self, facts: DatasetFacts, index: Path, /) -> tuple[Source, Source]:
        """Training and validation samples, in a worker; raises `DataChanged` if the data does not match the facts.

        `index` is the file that `Survey.write_index` wrote. Raises `DatasetError` for data that has disappeared since.
        """
        ...


def dataset_of(data: Data) -> Dataset:
    match data:
        case DigitsData():
            return Digits(data)
        case SyntheticData():
            return Synthetic(data)
        case ImageFolderData():
            return ImageFolder(data)
        case MindRecordData():
            return MindRecord(data)
        case Cifar10Data() | Cifar100Data():
            return Cifar(data)
        case FilesData():
            return Unlabelled(data)
        case NoiseData():
            return Noise(data)


def survey(data: Data) -> Survey:
    """Facts and files; raises `DatasetError` for data that is missing, empty or truncated."""
    return dataset_of(data).survey()


def survey_of_index(data: Data, *, facts: DatasetFacts, index: Path) -> Survey | None:
    """The survey of a run's data that cannot be looked at again, as its files are now; None for other data.

    Raises `DataChanged` where the index is not whole.
    """
    return Unlabelled(data).survey_of_index(facts, index) if isinstance(data, FilesData) else None


def open_splits(data: Data, *, facts: DatasetFacts, index: Path) -> tuple[Source, Source]:
    """Training and validation samples, as when the run was created; raises `DataChanged` and `DatasetError`."""
    return dataset_of(data).splits(facts, index)
