"""Step benchmark: the training and the evaluation step of mvit in both forms, and of timm in PyTorch.

    python benchmarks/step.py [--cases xx_small:16x256 xx_small:32x64] [--rounds 5] [--threads N] [--peers PYTHON]
                              [--json FILE]

Every subject is a process of its own, in an environment of its own. They take turns in rounds, each round in the
opposite order, so that other work on the machine affects all of them; one that waits for its turn uses no processor. A
batch is in memory: this is the step alone. `first` is the compilation of the training graph for mvit, without a cache,
and the first training step for PyTorch. Memory is the peak of a process that trains and evaluates. A ratio is the
median over the rounds of the ratio in the same round.

PYTHON is the interpreter of an environment with timm and torch (pip install timm torch); without it, mvit's two forms
are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

SUBJECTS = Path(__file__).resolve().parent / "subjects"
CASES = ("xx_small:16x256", "xx_small:32x64")
OURS, PEERS = ("fused", "plain"), ("channels-last", "eager")
_CASE = re.compile(r"(xx_small|x_small|small):(\d+)x(\d+)")


@dataclass
class Subject:
    """One process, and what it reported."""

    name: str
    process: subprocess.Popen[str]
    facts: dict[str, Any] = field(default_factory=dict)
    train_ms: list[float] = field(default_factory=list)
    """Medians of the rounds."""
    evaluate_ms: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with code {self.process.wait()}")
        return cast("dict[str, Any]", json.loads(line))

    def take(self, step: str, count: int) -> float:
        """Median milliseconds of so many steps."""
        assert self.process.stdin
        print(step, count, file=self.process.stdin, flush=True)
        answer = self.answer()
        self.peak_mb = answer["peak_mb"]
        return median(answer["ms"])


def compare(case: dict[str, Any], *, rounds: int, steps: int, peers: str | None, forms: list[str]) -> list[Subject]:
    """Start the subjects one after the other, warm them up, and let them take turns."""
    commands = [(f"mvit {form}", sys.executable, "of_mvit.py", form) for form in OURS]
    if peers:
        commands += [(f"timm {form}", peers, "of_torch.py", form) for form in forms]
    subjects: list[Subject] = []
    for name, python, file, form in commands:
        command = [python, str(SUBJECTS / file), form, json.dumps(case)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        subject = Subject(name, process)
        subject.facts = subject.answer()
        for step in ("train", "evaluate"):
            subject.take(step, 2)
        subjects.append(subject)
    for number in range(rounds):
        for subject in subjects if number % 2 else subjects[::-1]:
            subject.train_ms.append(subject.take("train", steps))
            subject.evaluate_ms.append(subject.take("evaluate", steps))
    for subject in subjects:
        subject.process.communicate()
    return subjects


def table(case: dict[str, Any], subjects: list[Subject]) -> str:
    """Markdown: a row per subject; ratios are to the first one, above 1 where that one is faster."""
    shape = f"{case['batch']}x{case['image_size']}x{case['image_size']}"
    lines = [
        f"| {case['model']}, {shape} | train, ms | img/s | x | evaluate, ms | x | first, s | peak, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    first = subjects[0]
    for one in subjects:
        cells = (
            one.name,
            _spread(one.train_ms),
            f"{1e3 * case['batch'] / median(one.train_ms):.1f}",
            _ratio(one.train_ms, first.train_ms),
            _spread(one.evaluate_ms),
            _ratio(one.evaluate_ms, first.evaluate_ms),
            f"{one.facts['compile_s']:.1f}",
            f"{one.peak_mb:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(slow: list[float], fast: list[float]) -> str:
    return _spread([one / other for one, other in zip(slow, fast, strict=True)], 2)


def _spread(values: list[float], digits: int = 0) -> str:
    """Median (minimum-maximum)."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", type=_case, default=[_case(text) for text in CASES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has timm and torch")
    parser.add_argument("--forms", nargs="+", default=list(PEERS), choices=(*PEERS, "compiled"))
    parser.add_argument("--json", type=Path, help="write the measurements")
    arguments = parser.parse_args()
    print(f"{_cpu()}, {arguments.threads} threads, Python {platform.python_version()}")
    print(f"{arguments.rounds} rounds of {arguments.steps} steps: median (minimum-maximum)")
    results: list[dict[str, Any]] = []
    for case in arguments.cases:
        case["threads"] = arguments.threads
        before = os.getloadavg()[0]
        subjects = compare(
            case, rounds=arguments.rounds, steps=arguments.steps, peers=arguments.peers, forms=arguments.forms
        )
        load = [round(before, 2), round(os.getloadavg()[0], 2)]
        print(f"\nload before and after: {load[0]}, {load[1]} on {os.cpu_count()} cores\n")
        print(table(case, subjects))
        for subject in subjects:
            print(f"{subject.name}: {subject.facts['what']}")
        measured = [{k: v for k, v in vars(subject).items() if k != "process"} for subject in subjects]
        results.append({"case": case, "cpu": _cpu(), "load": load, "subjects": measured})
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def _case(text: str) -> dict[str, Any]:
    match = _CASE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be a model, a batch and a side, as {CASES[0]}")
    return {"model": match[1], "batch": int(match[2]), "image_size": int(match[3])}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
