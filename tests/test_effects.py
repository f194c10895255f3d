"""No option without effect: each leaf of a run's models changes the plan, the command, the graph or the result."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mvit.config import RunConfig
from mvit.data import dataset
from mvit.files import file_digest, read_json
from mvit.models.kernels.build import Support
from mvit.parent.plan import make_plan
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import RunDir, create_run_dir
from tests.conftest import CHECKOUT, OF_THE_MACHINE
from tests.effects.material import make_material
from tests.effects.options import Pair, all_options, pair_of
from tests.effects.probes import HOST, PROBES, Subject

OF_WORKERS = {"model", "data", "precision", "task", "seed", "init", "augment", "optimizer", "train", "loss_scale"}
"""Sections that workers read; what else is left is read by nobody."""

OBSERVED = "observed.json"
OF_A_MODEL = {
    (task, f"model.{rate}") for task in ("evaluate", "predict", "export") for rate in ("dropout", "classifier_dropout")
}
"""Forward passes drop nothing; their whole model is that of the run that trained the weights: a size is one thing."""


OF_THE_END = {("predict", "task.output"), ("predict", "task.strict"), ("export", "task.tolerance")}
"""What tests/e2e/test_tasks.py shows: a file that the parent writes, and why a run fails."""


@pytest.fixture(scope="session")
def left_to_workers(tmp_path_factory) -> list[Pair]:
    """The options that no probe of the parent proves."""
    room = tmp_path_factory.mktemp("effects")
    material, surveys = make_material(room), {}
    proved: Counter[str] = Counter()
    left: list[Pair] = []
    for option in all_options():
        pair = pair_of(option, material)
        subjects = [Subject(raw, config, room, surveys) for raw, config in zip(pair.raws, pair.configs, strict=True)]
        probes = [probe for probe in PROBES if probe.sections is None or option.section in probe.sections]
        seen = next((probe.name for probe in probes if probe.of(subjects[0]) != probe.of(subjects[1])), None)
        if seen:
            proved[seen] += 1
        else:
            left.append(pair)
    print(*(f"{count:4} options change the {name}" for name, count in proved.most_common()), sep="\n")
    return left


def test_an_option_that_workers_do_not_read_changes_the_plan_the_command_or_the_launch(left_to_workers):
    assert [str(pair.option) for pair in left_to_workers if pair.option.section not in OF_WORKERS] == []


def once(pairs: list[Pair]) -> list[Pair]:
    """The options that all data share, once, for data without files: the same code prepares all images.

    And those of measured steps for a benchmark, since a profile takes the same ones.
    """
    options = [(pair, pair.option) for pair in pairs]
    pairs = [pair for pair, option in options if option.task != "profile" or option.section == "task"]
    return [pair for pair in pairs if dict(pair.option.kinds).get("data", "synthetic") == "synthetic"]


def observations(configs: list[RunConfig], room: Path) -> dict[RunConfig, dict[str, Any]]:
    """Execute a run of each configuration, in two processes at once, and look at what it leaves."""
    host = replace(HOST, kernels=Support(None, "the network that stands in has a plain form alone"))
    runs: dict[RunConfig, Run] = {}
    for number, config in enumerate(dict.fromkeys(configs)):
        survey = dataset.survey(config.data)
        runs[config] = Run(create_run_dir(room / str(number)), config, make_plan(config, host=host, facts=survey.facts))
        survey.write_index(runs[config].folder.data_index)
        write_run(runs[config])
    folders = [str(run.folder.path) for run in runs.values()]
    environment = {**os.environ, "GLOG_v": "3", "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([sys.executable, "-m", "tests.effects.worker", *half], cwd=CHECKOUT, env=environment)
        for half in (folders[::2], folders[1::2])
    ]
    assert [process.wait() for process in processes] == [0, 0]
    return {config: _observed(run.folder) for config, run in runs.items()}


def _observed(folder: RunDir) -> dict[str, Any]:
    """What a finished run leaves, without times and without its configuration."""
    seen = read_json(folder.path / OBSERVED)
    entries = list(JournalReader(folder.journal).entries()) if folder.journal.exists() else []
    metrics = [
        (name, entry["step"], value)
        for entry in entries
        for name, value in entry.get("metrics", {}).items()
        if not name.startswith((*OF_THE_MACHINE, "benchmark/", "profile/"))
    ]
    checkpoints = sorted(folder.checkpoints.glob("step-*.safetensors"))
    return {
        "network": seen["network"],
        "processes or threads that prepare images": seen["pools"],
        "weights after steps that were measured": seen["trained"],
        "journal": metrics,
        "answers": folder.answers.exists() and folder.answers.read_text(),
        "checkpoints that are kept": [path.name for path in checkpoints],
        "last checkpoint": checkpoints and file_digest(checkpoints[-1]),
    }


@pytest.mark.mindspore
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_other_option_changes_the_network_or_what_a_run_ends_with(left_to_workers, tmp_path):
    pairs = once([pair for pair in left_to_workers if pair.option.section in OF_WORKERS])
    observed = observations([config for pair in pairs for config in pair.configs], tmp_path)
    without: list[str] = []
    proved: Counter[str] = Counter()
    for pair in pairs:
        first, second = (observed[config] for config in pair.configs)
        changed = [name for name in first if first[name] != second[name]]
        proved.update(changed[:1])
        if not changed and (pair.option.task, pair.option.path) not in OF_A_MODEL | OF_THE_END:
            without.append(str(pair.option))
    print(*(f"{count:4} options change the {name}" for name, count in proved.most_common()), sep="\n")
    assert without == []
