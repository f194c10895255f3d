"""Fork: from which run's checkpoint a run started, as its provenance.json keeps it."""

from __future__ import annotations

from pathlib import Path

from mvit.config import Frozen
from mvit.files import read_mapping
from mvit.rundir.paths import RunDir

FORKED_FROM = "forked_from"
"""Its key."""


class Fork(Frozen):
    folder: str
    """Of the run that it started from."""
    step: int
    """Of the checkpoint."""
    run_sha256: str

    @property
    def name(self) -> str:
        """Of the run that it started from."""
        return Path(self.folder).name


def read_fork(folder: RunDir) -> Fork | None:
    """None for a run from its own first step, and where provenance.json is missing or torn."""
    made_from = (read_mapping(folder.provenance) or {}).get(FORKED_FROM)
    return Fork.model_validate(made_from) if made_from else None
