"""Sweep benchmark: what slots, shared graphs, halving and search save.

    python benchmarks/sweeps.py slots|graphs|halving|search [--rounds 3] [--json FILE] [OVERRIDE ...]

    slots    12 short trials in two slots of a core each, beside the same one after the other on all cores
    graphs   8 trials of one graph in two slots, beside 8 runs that each compile it
    halving  27 configurations in halving, beside all of them run to their end
    search   the 20 trials of experiments/digits_search.yaml, beside 20 random ones run to their end

Both ways take turns, round by round, with another seed in each. Every sweep is a real one, without a store. `--json`
writes FILE after each round; files named experiments/results/sweeps-*.json are among those that benchmarks/tables.py
makes docs/performance.md from.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.machine import CHECKOUT, commit, cpu_model, now, positive
from benchmarks.results import SweepsResult, SweepWay, write
from benchmarks.tables import sweeps_table
from mvit.parent.sweep.outcome import SweepOutcome
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import RunDir

SHORT = ("train.epochs=2", "seed=1,2,3,4,5,6", "optimizer.lr=1e-3,2e-3")
SAME_GRAPH = ("train.epochs=1", "optimizer.lr=1e-3,2e-3", "optimizer.weight_decay=0.01,0.1", "seed=1,2")
GRID = (
    "optimizer.lr=3e-4,1e-3,3e-3", "optimizer.weight_decay=0.001,0.03,0.3", "train.label_smoothing=0.0,0.1,0.3",
    "train.epochs=9", "data.image_size=32", "sweep.slots=2",
)  # fmt: skip
SEARCH = ("experiment=digits_search", "data.image_size=32", "sweep.slots=2")
QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "slots": {"one after the other": SHORT, "two slots": (*SHORT, "sweep.slots=2")},
    "graphs": {
        "each compiles": (*SAME_GRAPH, "topology.compile_cache=false"),
        "two slots, one graph": (*SAME_GRAPH, "sweep.slots=2"),
    },
    "halving": {
        "all to their end": GRID,
        "halving": (*GRID, "sweep/pruner=halving", "sweep.pruner.finalists=6"),
    },
    "search": {"random": (*SEARCH, "sweep.sampler=random", "sweep/pruner=none"), "TPE and halving": SEARCH},
}
"""The overrides of each way to answer a question."""
SEEDED = {"halving": "seed", "search": "sweep.seed"}
"""What differs between rounds."""


def measure(way: SweepWay, overrides: Sequence[str], *, is_cold: bool) -> SweepWay:
    """The way with a round more: a real sweep, which leaves nothing."""
    with TemporaryDirectory() as room:
        cache = Path(room) / "cache"
        if is_cold:  # graphs of earlier rounds are not found; the kernels are, as after any first run
            (cache / "mvit").mkdir(parents=True)
            home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
            (cache / "mvit/kernels").symlink_to(home / "mvit/kernels")
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache)} if is_cold else dict(os.environ)
        command = [sys.executable, "launch.py", "-m", "tracking=none", f"runs_dir={room}/runs", *overrides]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, stdout=subprocess.DEVNULL, check=False)
        took = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
        (ledger,) = Path(room).glob("runs/*/*/ledger.jsonl")
        outcome = SweepOutcome(ledger.parent)
        epochs = sum(epochs_of(trial.folder) for trial in outcome.trials)
        best = outcome.order[0].values["best/val_acc1"]
        print(f"{way.name}: {took:.1f} s, {epochs} epochs, best {best:.2f} %", file=sys.stderr)
        return way.with_round(wall_s=took, epochs=epochs, best=best, trials=len(outcome.trials))


def epochs_of(folder: RunDir) -> int:
    """Epochs that a trial has come to."""
    entries = JournalReader(folder.journal).entries()
    return max((entry["epoch"] for entry in entries if "val/acc1" in entry.get("metrics", {})), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of all trials, such as data=synthetic")
    arguments = parser.parse_args()
    question, began = arguments.question, now()
    ways = [SweepWay(name=name) for name in QUESTIONS[question]]
    result = None
    for seed in range(1, arguments.rounds + 1):
        seeded = [f"{SEEDED[question]}={seed}"] if question in SEEDED else []
        for number in (0, 1) if seed % 2 else (1, 0):
            overrides = [*QUESTIONS[question][ways[number].name], *seeded, *arguments.overrides]
            ways[number] = measure(ways[number], overrides, is_cold=question == "graphs")
        result = SweepsResult(
            date=began, commit=commit(), cpu=cpu_model(), question=question, overrides=tuple(arguments.overrides),
            ways=tuple(ways),
        )  # fmt: skip
        if arguments.json:
            write(result, arguments.json)
    assert result is not None
    print(sweeps_table(result))


if __name__ == "__main__":
    main()
