"""Which samples a dataset has: a look at it that needs neither MindSpore nor Pillow.

The parent looks before it launches, the workers look again and compare fingerprints. No image is decoded here.
"""

from __future__ import annotations

from mvit.config import Cifar10Data, Cifar100Data, Data, DigitsData, ImageFolderData, MindRecordData, SyntheticData
from mvit.data import cifar, imagefolder, mindrecord
from mvit.data.facts import facts
from mvit.plan import DatasetFacts

DIGITS_TRAIN, DIGITS_VAL = 1437, 360


def look(data: Data) -> DatasetFacts:
    """Counts, class names and fingerprint; raises `DatasetError` for data that is missing, empty or cut."""
    match data:
        case DigitsData():
            names = [str(digit) for digit in range(10)]
            content = ["scikit-learn digits, split 0"]
            return facts(num_train=DIGITS_TRAIN, num_val=DIGITS_VAL, class_names=names, content=content)
        case SyntheticData():
            names = [f"class_{index}" for index in range(data.classes)]
            content = [f"{data.classes} {data.num_train} {data.num_val} {data.image_size}"]
            return facts(num_train=data.num_train, num_val=data.num_val, class_names=names, content=content)
        case ImageFolderData():
            return imagefolder.facts_of(data, *imagefolder.scan(data))
        case MindRecordData():
            return mindrecord.facts_of(mindrecord.open_manifest(data.root))
        case Cifar10Data() | Cifar100Data():
            return cifar.facts_of(cifar.read(data))
