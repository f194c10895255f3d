"""What MLflow gets of a failure."""

from mvit.parent.tracking.content import failure_tags_of
from mvit.rundir.ending import Failure, write_failure
from mvit.rundir.status import Stage, WorkerError, WorkerStatus, write_status


def test_a_failure_is_the_parents_verdict_else_the_first_that_a_worker_reported(folder):
    assert failure_tags_of(folder) == {}
    for rank, kind in enumerate(("ValueError", "NonFinite")):
        error = WorkerError(type=kind, message="why", where=None, stage=Stage.STEP, time=2.0 - rank)
        values = {"rank": rank, "host": "here", "pid": 1, "started": 0, "step": 3, "marks": 0, "time": 1.0}
        write_status(folder.status / f"{rank}.json", WorkerStatus(**values, stage=Stage.FAILED, error=error))
    assert failure_tags_of(folder) == {"error": "NonFinite: why", "error.kind": "nan"}
    write_failure(folder, Failure("disk", None, "step", "full"))
    assert failure_tags_of(folder) == {"error": "full", "error.kind": "disk"}
