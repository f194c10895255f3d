"""Hydra's entry: the words of a launch, as one run or several."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mvit.cli.reported import reported
from mvit.errors import ConfigError, Problem, first_line
from mvit.parent.launch import launch
from mvit.parent.request import command_line
from mvit.parent.request.command_line import CommandLine
from mvit.parent.request.compose import Composer, as_hydra_takes_it, problem_of_hydra
from mvit.parent.sweep.launch import launch_sweep
from mvit.places import CONF
from mvit.program import LAUNCH, REFERENCE


def start(words: Sequence[str]) -> int:
    """Launch what was typed after `launch.py` or `mvit launch`.

    Exit codes: 0 finished, 1 a run failed, 2 the request was wrong, 75 paused, 130 and 143 stopped by a signal.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, instead of printing several lines and exiting with 1
    return reported(lambda: _start(words, list(sys.argv)))


def _start(words: Sequence[str], argv: list[str]) -> int:
    with _hydra_errors():
        line = command_line.read(words)
        if line.shows:
            if line.problems:
                raise ConfigError(*line.problems)
            return _hydra(argv, line, _shows_nothing)
        composer = Composer(line.config_dirs)
        if line.many or composer.is_sweep(line.overrides):
            if line.problems:
                raise ConfigError(*line.problems)
            return _many(argv, line, composer)
        return launch(composer.compose(line.overrides, problems=[*line.problems, *_of_several(line)]), argv=argv)


def _of_several(line: CommandLine) -> Iterator[Problem]:
    """The problems of what is for several runs, in a request for one."""
    for text in line.overrides:
        key, _, value = text.partition("=")
        if key.lstrip("+~").split(".")[0].split("/")[0] == "sweep":
            yield Problem(key, value, "is for several runs", "remove it, or add -m")


def _many(argv: list[str], line: CommandLine, composer: Composer) -> int:
    codes: list[int] = []

    def trials(overrides: Any) -> None:  # those of every trial, by hydra_plugins/mvit_sweeper.py
        # Hydra would print in its own words what this raises.
        codes.append(reported(lambda: _sweep(overrides, argv, composer)))

    return max([_hydra(argv, line, trials), *codes])


def _hydra(argv: list[str], line: CommandLine, task: Callable[[DictConfig], None]) -> int:
    """Let Hydra show what it was asked for, or call `task` for each trial."""
    # It takes flags before or after all overrides, not between them.
    folders = [f"--config-dir={folder}" for folder in line.config_dirs]
    help_words = (f"hydra.help.app_name='{LAUNCH}'", f"hydra.help.footer='{REFERENCE}'")
    sys.argv = [argv[0], *folders, *line.flags, *as_hydra_takes_it(line), *help_words]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    except SystemExit as end:  # of --hydra-help
        if end.code:
            raise
    finally:
        sys.argv = argv
    return 0


def _shows_nothing(_: DictConfig) -> None:
    raise ConfigError(Problem("--package", None, "shows nothing by itself", "add --cfg job"))


def _sweep(overrides: Any, argv: list[str], composer: Composer) -> int:
    with _hydra_errors():
        return launch_sweep(overrides, composer=composer, argv=argv)


@contextmanager
def _hydra_errors() -> Generator[None]:
    """Meanwhile what Hydra raises is a `ConfigError`."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(problem_of_hydra(error)) from error
    except ValueError as error:  # of its flags, as --resolve without --cfg
        if "hydra" not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts:
            raise
        raise ConfigError(Problem("launch", None, first_line(error), f"see {LAUNCH} --hydra-help")) from error
