"""Step benchmark: the training and the evaluation step of mvit, MindCV, timm and transformers, side by side.

    python benchmarks/step.py [--subjects mvit-fused timm-eager] [--cases xx_small:16x256 xx_small:32x64]
                              [--peers PYTHON] [--mindcv PYTHON] [--rounds 5] [--steps 5] [--threads N] [--json FILE]

Every subject is a process of its own, in an environment of its own. Those of a group take turns in rounds, each round
in the opposite order, so that other work on the machine affects all of them; one that waits for its turn uses no
processor, but memory: hence groups, of `--at-once` subjects, the first of which is in all of them. A batch is in
memory: this is the step alone. Without `--subjects`, all are measured for which there is an interpreter:

    --peers     has PyTorch and its libraries: pip install torch torchvision timm transformers
    --mindcv    has MindCV: pip install mindcv 'mindspore>=2.10,<2.11' 'numpy<2'

`--json` writes FILE after each group, in the form that benchmarks/results.py explains. Files named
experiments/results/step-*.json are what benchmarks/tables.py makes docs/performance.md from.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast, get_args

from benchmarks.machine import CHECKOUT, commit, cpu_facts, cpu_model, now, positive
from benchmarks.results import Case, Group, Measured, Model, StepResult, write
from benchmarks.tables import step_tables
from mvit.machine_load import busy_s, cpu_s

CASES = ("xx_small:16x256", "x_small:16x256", "small:16x256", "xx_small:32x64", "x_small:32x64", "small:32x64")
_CASE = re.compile(rf"({'|'.join(get_args(Model))}):([1-9]\d*)x([1-9]\d*)")
Home = Literal["mvit", "peers", "mindcv"]
TURN_S = 2.0
"""Seconds of training in a turn, where a step takes less."""


@dataclass(frozen=True)
class Subject:
    """What can be measured: a file of benchmarks/subjects/, in the environment that has its libraries."""

    name: str
    home: Home
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        names: dict[Home, str] = {"mvit": "of_mvit.py", "peers": "of_torch.py", "mindcv": "of_mindcv.py"}
        return CHECKOUT / "benchmarks/subjects" / names[self.home]


TORCH_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
SUBJECTS = (
    Subject("mvit-fused", "mvit", ("fused",)),
    Subject("mvit-fused-avx2", "mvit", ("fused", "avx2")),
    Subject("timm-channels-last-avx2", "peers", ("timm", "channels-last"), TORCH_AVX2),
    Subject("mvit-plain", "mvit", ("plain",)),
    Subject("timm-channels-last", "peers", ("timm", "channels-last")),
    Subject("timm-eager", "peers", ("timm", "eager")),
    Subject("timm-compiled", "peers", ("timm", "compiled")),
    Subject("transformers-channels-last", "peers", ("transformers", "channels-last")),
    Subject("transformers-eager", "peers", ("transformers", "eager")),
    Subject("transformers-compiled", "peers", ("transformers", "compiled")),
    Subject("mindcv-capped", "mindcv", environment={"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Subject("mindcv-stock", "mindcv"),
    Subject("mvit-fused-bf16", "mvit", ("fused", "bf16")),
)
BY_NAME = {subject.name: subject for subject in SUBJECTS}


class Process:
    """A subject that runs."""

    def __init__(self, subject: Subject, *, python: str, case: Case, threads: int, steps: int) -> None:
        """A turn has so many steps, or as many as fit into `TURN_S`."""
        self.subject, self.steps = subject, steps
        self.train_ms: list[float] = []
        self.evaluate_ms: list[float] = []
        self.peak_mb = 0.0
        request = json.dumps({**case.model_dump(), "threads": threads})
        # torch.compile keeps what it compiled in the folder for temporary files.
        self._folder = TemporaryDirectory(ignore_cleanup_errors=True)
        # Nothing but the subject says what it is held to.
        environment = {name: value for name, value in os.environ.items() if name not in TORCH_AVX2}
        self.popen = subprocess.Popen(
            [python, str(subject.file), request, *subject.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "TMPDIR": self._folder.name, **subject.environment},
        )
        self.facts = self._answer()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure:
            self.popen.kill()
        self.popen.communicate()  # it ends with its standard input
        self._folder.cleanup()

    def warm_up(self) -> None:
        fit = int(TURN_S / (self.take("train", 1) / 1000))
        self.steps = max(1, min(self.steps, fit))
        self.take("evaluate", min(2, self.steps))

    def turn(self) -> None:
        self.train_ms.append(self.take("train", self.steps))
        self.evaluate_ms.append(self.take("evaluate", self.steps))

    def measured(self) -> Measured:
        return Measured(
            name=self.subject.name,
            steps=self.steps,
            peak_mb=round(self.peak_mb, 1),
            train_ms=tuple(self.train_ms),
            evaluate_ms=tuple(self.evaluate_ms),
            **{**self.facts, "first_s": round(self.facts["first_s"], 2)},
        )

    def take(self, step: str, count: int) -> float:
        """Median milliseconds of so many steps."""
        assert self.popen.stdin
        print(step, count, file=self.popen.stdin, flush=True)
        answer = self._answer()
        self.peak_mb = answer["peak_mb"]
        return round(median(answer["ms"]), 2)

    def _answer(self) -> dict[str, Any]:
        assert self.popen.stdout
        line = self.popen.stdout.readline()
        if not line:
            sys.exit(f"{self.subject.name} ended with code {self.popen.wait()}")
        return cast("dict[str, Any]", json.loads(line))


def compare(
    subjects: Sequence[Subject], case: Case, *, pythons: dict[Home, str], rounds: int, threads: int, steps: int
) -> Group:
    """Start the subjects one after the other, warm them up, and let them take turns."""
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        running: list[Process] = []
        for subject in subjects:
            process = Process(subject, python=pythons[subject.home], case=case, threads=threads, steps=steps)
            running.append(stack.enter_context(process))
            process.warm_up()
        began, busy, ours = time.perf_counter(), busy_s(), _cpu_s(running)
        for number in range(rounds):
            for process in running if number % 2 else running[::-1]:
                process.turn()
        others = busy_s() - busy - (_cpu_s(running) - ours)
        return Group(
            case=case,
            load_before=round(load_before, 2),
            load_after=round(os.getloadavg()[0], 2),
            other_cores=max(0.0, round(others / (time.perf_counter() - began), 2)),
            subjects=tuple(process.measured() for process in running),
        )


def _cpu_s(running: Sequence[Process]) -> float:
    return cpu_s(process.popen.pid for process in running)


def grouped(subjects: Sequence[Subject], *, at_once: int) -> list[list[Subject]]:
    """Groups of so many subjects; the first one is in all of them."""
    first, others = subjects[0], subjects[1:]
    size = at_once - 1
    return [[first, *others[start : start + size]] for start in range(0, max(1, len(others)), size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", metavar="NAME", choices=BY_NAME, help=", ".join(BY_NAME))
    parser.add_argument("--cases", nargs="+", type=case_of, default=[case_of(text) for text in CASES])
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has torch, timm and transformers")
    parser.add_argument("--mindcv", metavar="PYTHON", help="interpreter that has MindSpore and MindCV")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=5, help=f"steps in a turn, at most {TURN_S:g} s of them")
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--at-once", type=positive, default=3, help="subjects in a group; at least 2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements")
    arguments = parser.parse_args()
    pythons: dict[Home, str] = {"mvit": sys.executable}
    pythons |= {"peers": arguments.peers} if arguments.peers else {}
    pythons |= {"mindcv": arguments.mindcv} if arguments.mindcv else {}
    subjects = _subjects(parser, arguments.subjects, pythons)
    result = StepResult(
        date=now(),
        commit=commit(),
        cpu=cpu_model(),
        isa=tuple(flag for flag in cpu_facts("flags", "Features").split() if _VECTORS.match(flag)),
        cores=len(os.sched_getaffinity(0)),
        threads=arguments.threads,
        rounds=arguments.rounds,
        groups=(),
    )
    for case in arguments.cases:
        for group in grouped(subjects, at_once=max(2, arguments.at_once)):
            names = ", ".join(subject.name for subject in group)
            print(f"{case.label}: {names}", file=sys.stderr)
            measured = compare(
                group,
                case,
                pythons=pythons,
                rounds=arguments.rounds,
                threads=arguments.threads,
                steps=arguments.steps,
            )
            result = result.model_copy(update={"groups": (*result.groups, measured)})
            if arguments.json:
                write(result, arguments.json)
    print(step_tables(result))


def _subjects(
    parser: argparse.ArgumentParser, names: Sequence[str] | None, pythons: dict[Home, str]
) -> tuple[Subject, ...]:
    if names is None:
        held = "avx2" in cpu_facts("flags").split()
        possible = (subject for subject in SUBJECTS if held or not subject.name.endswith("-avx2"))
        return tuple(subject for subject in possible if subject.home in pythons)
    chosen = tuple(BY_NAME[name] for name in dict.fromkeys(names))
    for subject in chosen:
        if subject.home not in pythons:
            parser.error(f"{subject.name} needs --{subject.home} PYTHON")
    return chosen


def case_of(text: str) -> Case:
    match = _CASE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be a model, a batch and a side, such as {CASES[0]}")
    return Case(model=cast("Model", match[1]), batch=int(match[2]), image_size=int(match[3]))


_VECTORS = re.compile("sse4|avx|fma|f16c|amx|asimd|sve")


if __name__ == "__main__":
    main()
