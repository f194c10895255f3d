"""One run, or with -m many: compose, check, plan, run, mirror. `python launch.py --help`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from mvit import console, rundir
from mvit.check import ConfigError, Problem, nearest
from mvit.composed import EXECUTES, must_be_sensible
from mvit.credentials import hidden
from mvit.launch import signals
from mvit.launch.launcher import launch
from mvit.launch.plan import CHECKOUT
from mvit.launch.sweep import Sweep

CONF = CHECKOUT / "conf"


def main() -> int:
    """Exit codes: 0 finished, 1 a run failed, 2 the request was wrong, 130 and 143 stopped by a signal."""
    with tempfile.TemporaryDirectory(prefix="mvit-") as scratch, signals.raising():
        return _main(scratch)


def _main(scratch: str) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, instead of printing several lines and exiting with 1
    # Hydra makes a folder for a sweep before anything is checked; ours is made with the first trial that is accepted.
    OmegaConf.register_new_resolver("mvit.scratch", _always(scratch), replace=True)
    asked = list(sys.argv)
    codes: list[int] = []
    sweep = Sweep(stamp=rundir.stamp())

    def task(composed: DictConfig) -> None:
        of_many = HydraConfig.get().mode == RunMode.MULTIRUN
        codes.append(_reported(lambda: launch(_plain(composed), argv=asked, sweep=sweep if of_many else None)))
        if codes[-1] == 2 and of_many:
            sweep.refused += 1
        if codes[-1] >= 128:
            raise signals.Stopped(codes[-1] - 128)

    def compose() -> int:
        must_be_sensible([CONF, *_other_folders(asked)])
        # Hydra takes -m before or after all overrides, not between them.
        arguments = sorted(map(_checked_by_us, asked[1:]), key=lambda argument: argument not in ("-m", "--multirun"))
        sys.argv = [asked[0], *arguments]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
        return 0

    try:
        codes.append(_reported(compose))
    finally:
        sys.argv = asked
        with suppress(signals.Stopped):  # who cannot wait for MLflow: the next launch tells it
            sweep.close(stopped=max(codes, default=0) >= 128)
    return max(codes)


def _always(value: str) -> Callable[[], str]:
    return lambda: value


def _plain(composed: DictConfig) -> dict[str, Any]:
    """Ordinary dicts and lists; past this line there is no DictConfig. A missing value is the text `???`."""
    raw = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    return cast(dict[str, Any], raw)


def _other_folders(arguments: list[str]) -> list[Path]:
    """What Hydra's --config-dir names: where else it looks for configuration."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path, action="append", default=[])
    return parser.parse_known_args(arguments)[0].config_dir


def _checked_by_us(argument: str) -> str:
    """`key=value` as `++key=value`: Hydra stops at the first unknown key, `mvit.check` lists all that is wrong."""
    key, equals, value = argument.partition("=")
    if key.startswith(("-cp", "--config-p")):
        raise ConfigError(Problem(key, None, "would replace conf/", "add a folder with --config-dir"))
    if EXECUTES in argument or key.lstrip("+~").startswith(("hydra.callbacks", "hydra/callbacks", "hydra.searchpath")):
        rule = "is refused: a configuration is data and executes nothing"
        raise ConfigError(Problem(key.lstrip("+~"), None, rule, "leave it out"))
    is_group = "/" in key or "@" in key or (CONF / key).is_dir()
    if is_group and "null" in value.split(",") and key != "experiment":
        options = [path.stem for path in (CONF / key).glob("*.yaml")]
        raise ConfigError(Problem(key, "null", "is no option of the group", nearest("null", options)))
    if not equals or key[:1] in "+~-" or is_group or key.startswith("hydra."):
        return argument
    return f"++{argument}"


def _reported(act: Callable[[], int]) -> int:
    """The exit code of `act`; a wrong request is one line per problem, never a traceback."""
    try:
        return act()
    except signals.Stopped as stopped:  # before or after the run itself, which ends its own processes
        return stopped.exit_code
    except ConfigError as error:
        console.complain(str(problem) for problem in error.problems)
    except rundir.RunDirError as error:
        console.complain([hidden(str(error))])
    except MissingConfigException as error:
        console.complain([_missing_option(error)])
    except InterpolationResolutionError as error:
        console.complain([f"{error.full_key}: cannot be resolved: {_first_line(error)}"])
    except (HydraException, OmegaConfBaseException) as error:
        said = _first_line(error).replace("++", "", 1)
        if said.startswith("LexerNoViableAlt"):  # the name of a class of the parser
            said = f"{said.partition(': ')[2]}: has a character that must be quoted twice; write \"key='value'\""
        console.complain([said])
    return 2


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = hidden(error.missing_cfg_file or "").rpartition("/")
    options = [name for name in error.options or [] if name != "README"]
    if not group or not options:
        return _first_line(error).removeprefix("In 'config': ")
    return str(Problem(group, option, "is no option of the group", nearest(option, options)))


def _first_line(error: Exception) -> str:
    return hidden(str(error).strip().splitlines()[0])


if __name__ == "__main__":
    sys.exit(main())
