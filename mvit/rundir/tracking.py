"""tracking.json: the MLflow run that mirrors a folder, and how far it has got; a sweep's folder has one too."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from pydantic import ConfigDict, Field

from mvit.config import Frozen
from mvit.credentials import redacted
from mvit.files import read_json_bytes, write_json
from mvit.rundir.paths import RunDir


class TrackingRecord(Frozen):
    """tracking.json."""

    model_config = ConfigDict(extra="ignore")

    store: str
    """The URI of the store, without credentials."""
    experiment: str
    experiment_id: str | None = None
    run_id: str | None = None
    """None until the store has answered."""
    offset: Annotated[int, Field(ge=0)] = 0
    """Bytes of the journal that were sent."""
    points: int = 0
    """Metric values that were sent."""
    artifacts: dict[str, str] = Field(default_factory=dict[str, str])
    """The sha256 of each file that was sent, by its path in the run folder."""
    model_id: str | None = None
    """The model that the run's best weights are there."""

    def run_in(self, uri: str) -> str | None:
        """The id of the run, if it is in that store."""
        return self.run_id if self.store == redacted(uri) else None


def read_record(folder: RunDir) -> TrackingRecord | None:
    """tracking.json; None where it is missing, torn or something else."""
    with suppress(OSError, ValueError):
        return TrackingRecord.model_validate_json(read_json_bytes(folder.tracking))
    return None


def write_record(folder: RunDir, record: TrackingRecord) -> None:
    write_json(folder.tracking, record.model_dump(mode="json"))
