"""Survey: one look at a dataset, in the parent, for its facts and for what the workers need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mvit.data import index, readable
from mvit.data.listing import Listing
from mvit.errors import ConfigError, DataChanged, DatasetError, Problem
from mvit.files import as_utf8
from mvit.plan import DatasetFacts


@dataclass(frozen=True)
class Survey:
    """The result of one look at the data; no image is decoded for it."""

    facts: DatasetFacts
    listing: Listing | None = None
    """The image files; None for a dataset that workers open without an index."""
    on_unreadable: Literal["refuse", "skip", "report"] = "refuse"
    """What becomes of images that cannot be decoded; to report them is up to who reads them."""

    def readable(self, *, training: bool, threads: int, cache: Path, before: Callable[[int], None]) -> Survey:
        """The survey without image files that cannot be decoded; the training split is checked only for `training`.

        `cache` is the directory that keeps the result; `before` is called with the number of images if they must be
        decoded. Raises `ConfigError` with every such file if none may be skipped, or with every class left empty.
        """
        if self.listing is None or self.on_unreadable == "report":
            return self
        listing, facts = self.listing, self.facts
        splits = (listing.train, listing.val) if training else (listing.val,)
        broken = readable.unreadable_cached(listing.root, splits, folder=cache, threads=threads, before=before)
        if not broken:
            return self
        if self.on_unreadable == "refuse":
            remedy = "remove or repair it, or set data.on_unreadable=skip"
            raise ConfigError(
                *(Problem("data.root", str(listing.root / path), "cannot be decoded", remedy) for path in broken)
            )
        kept = replace(listing, train=listing.train.without(broken), val=listing.val.without(broken))
        if training and (emptied := sorted(set(listing.train.labels) - set(kept.train.labels))):
            rule, remedy = "is a class without decodable images", "repair its images, or remove the class"
            raise ConfigError(*(Problem("data.root", listing.classes[label], rule, remedy) for label in emptied))
        counts = {"num_train": len(kept.train.paths), "num_val": len(kept.val.paths)}
        facts = facts.model_copy(update={**counts, "skipped": tuple(map(as_utf8, broken))})
        return replace(self, facts=facts, listing=kept)

    def write_index(self, path: Path) -> None:
        """Write the index that spares workers from listing the files again; nothing for a dataset without files."""
        if self.listing is not None:
            index.write(path, self.listing, fingerprint=self.facts.fingerprint)

    def check_index(self, path: Path, *, facts: DatasetFacts) -> None:
        """Raises `DataChanged` if workers would not find the index of these facts."""
        if self.listing is not None:
            index.read(path, facts=facts)


def make_facts(*, num_train: int, num_val: int, class_names: Sequence[str], content: Iterable[str]) -> DatasetFacts:
    """The facts; the fingerprint is the sha256 over the lines of `content`."""
    digest = hashlib.sha256()
    for line in content:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return DatasetFacts(
        num_train=num_train,
        num_val=num_val,
        class_names=tuple(map(as_utf8, class_names)),
        fingerprint=digest.hexdigest(),
        skipped=(),
    )


def check_same(now: DatasetFacts, planned: DatasetFacts, *, root: str) -> None:
    """Raises `DataChanged` if the data differs from what the run was planned with."""
    if now.fingerprint != planned.fingerprint:
        raise DataChanged(f"{root} has changed since the run was planned; start a new run")


def check_directory(path: Path, *, key: str, value: str, remedy: str) -> None:
    """Raises `DatasetError` for a path that is not a directory."""
    if not path.is_dir():
        rule = "is not a directory" if path.exists() else "does not exist"
        where = "" if str(path) == value else f" in {path.parent}"
        raise DatasetError(Problem(key, value, rule + where, remedy))
