"""Seeds benchmark: the accuracy of a job over many seeds, in two forms.

    python benchmarks/seeds.py [--forms fused plain] [--seeds 10] [--json FILE] [OVERRIDE ...]

The forms are the fused kernels, the same with activations in bf16, and the plain form. They take turns, seed by seed;
without overrides it is the default job. Reported are mean and standard deviation of each form, and the p of a two-sided
t-test that does not assume equal variances (Welch). `--json` writes
FILE after each seed. Files named experiments/results/seeds-*.json are among those that benchmarks/tables.py makes
docs/performance.md from.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.machine import commit, cpu_model, now, positive
from benchmarks.results import SeedsResult, write
from benchmarks.runs import metrics_of
from benchmarks.tables import seeds_table

FORMS = {
    "fused": ("model.kernels=fused",),
    "plain": ("model.kernels=plain",),
    "bf16": ("model.kernels=fused", "train.activations=bf16"),
}


def accuracy(form: str, seed: int, overrides: list[str]) -> float:
    """Best top-1 accuracy of the job, %."""
    return metrics_of(*overrides, *FORMS[form], f"seed={seed}")["best/val_acc1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs=2, choices=FORMS, metavar="FORM", default=["fused", "plain"])
    parser.add_argument("--seeds", type=positive, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the accuracies")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of the default job, such as train.epochs=3")
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {form: [] for form in arguments.forms}
    began = now()
    result = None
    for seed in range(arguments.seeds):
        for form in arguments.forms if seed % 2 else arguments.forms[::-1]:
            found[form].append(accuracy(form, seed, arguments.overrides))
            print(f"seed {seed}, {form}: {found[form][-1]:.2f} %", file=sys.stderr)
        result = SeedsResult(
            date=began,
            commit=commit(),
            cpu=cpu_model(),
            overrides=tuple(arguments.overrides),
            acc1={form: tuple(values) for form, values in found.items()},
        )
        if arguments.json:
            write(result, arguments.json)
    assert result is not None
    print(seeds_table(result))


if __name__ == "__main__":
    main()
