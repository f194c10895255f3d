"""The results of runs in the columns of the published table, runs that differ in their seed alone as one row."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mvit.parent.report.accuracy import accuracies
from mvit.parent.report.admissible import Verdict, verdict
from mvit.parent.report.grid import Grid
from mvit.parent.report.record import Record, Value
from mvit.parent.report.row import result_row
from mvit.rundir.frozen import Run
from mvit.rundir.result import read_result

PUBLISHED = (
    "model name", "params(M)", "cards", "batch size", "resolution", "jit level", "graph compile", "ms/step", "img/s",
    "acc@top1", "acc@top5",
)  # fmt: skip
"""Columns of MindCV's table."""
HEADINGS = (*PUBLISHED, "recipe", "n", "std", "status", "admissible", "run")
NUMBERS = ("params(M)", "graph compile", "ms/step", "img/s", "acc@top1", "acc@top5", "n", "std")
MAY_GO = ("jit level", "status", "batch size", "acc@top5", "ms/step", "recipe", "params(M)", "resolution")
MOST_NAMED = 3
"""Runs that a row names."""


@dataclass(frozen=True)
class Job:
    """The finished runs of one configuration, over seeds."""

    records: Sequence[Record]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The mean of each metric that all of them have; of compilations, those that loaded no graph, if there are."""
        every = [record.metrics for record in self.records]
        cold = [metrics for metrics in every if not metrics.get("perf/compile_cached")] or every
        shared = [key for key in every[0] if all(key in metrics for metrics in every)]
        groups = {key: cold if key.startswith("perf/compile") else every for key in shared}
        return {key: statistics.fmean(metrics[key] for metrics in group) for key, group in groups.items()}

    @property
    def run(self) -> Run:
        """One of the runs."""
        run = self.records[0].run
        assert run
        return run

    @property
    def names(self) -> str:
        """The ids of the runs, so many that they fit."""
        more = len(self.records) - MOST_NAMED
        return ", ".join(record.id for record in self.records[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

    @property
    def verdict(self) -> Verdict:
        """Whether the results may be believed, and their speeds."""
        verdicts = {verdict(record) for record in self.records}
        return "no" if "no" in verdicts else "not the speed" if "not the speed" in verdicts else "yes"

    @property
    def accuracy(self) -> float:
        """Mean acc@top1, percent."""
        return statistics.fmean(self.accuracies)

    @property
    def accuracies(self) -> list[float]:
        """acc@top1 of each run at its end, percent."""
        return accuracies([record.metrics for record in self.records])

    @cached_property
    def means(self) -> Mapping[str, str]:
        """The columns of the published table, with the means over the seeds."""
        first = self.records[0]
        assert first.row
        if len(self.records) == 1:
            return first.row
        result = read_result(first.folder)
        assert result
        return result_row(self.run, result.model_copy(update={"metrics": self.metrics}))

    def row(self) -> dict[str, str]:
        """Its numbers are means; `std` is the deviation of acc@top1 over the seeds."""
        n = len(self.records)
        return {
            **self.means,
            "n": str(n),
            "std": f"{statistics.stdev(self.accuracies):.2f}" if n > 1 else "-",
            "status": "/".join(dict.fromkeys(record.status for record in self.records)),
            "admissible": self.verdict if all(record.is_whole for record in self.records) else "-",
            "run": self.names,
        }


def jobs_of(records: Sequence[Record]) -> list[Job]:
    """Records with an accuracy, those of one job together; the most accurate job first.

    A seed that was run several times counts once, with its last run.
    """
    jobs: dict[str, dict[Value, Record]] = {}
    for record in records:
        if record.row is not None and "val/acc1" in record.metrics:  # a prediction, for one, has none
            jobs.setdefault(record.job, {})[record.values.get("seed")] = record
    return sorted((Job(list(of_job.values())) for of_job in jobs.values()), key=lambda job: -job.accuracy)


def results(jobs: Sequence[Job]) -> Grid:
    """The table, a row for each job."""
    return Grid(HEADINGS, [job.row() for job in jobs], NUMBERS, MAY_GO)
