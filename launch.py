"""One run, or with -m many: compose, check, plan, run, mirror. `python launch.py --help`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from mvit import console
from mvit.credentials import hidden
from mvit.errors import ConfigError, Problem, RunDirError
from mvit.parent import signals
from mvit.parent.host import CHECKOUT
from mvit.parent.launch import launch
from mvit.parent.request.check import nearest
from mvit.parent.request.yaml_files import EXECUTES, must_be_sensible, swept
from mvit.parent.sweep.sweep import launch_sweep

CONF = CHECKOUT / "conf"


def main() -> int:
    """Exit codes: 0 finished, 1 a run failed, 2 the request was wrong, 130 and 143 stopped by a signal."""
    with tempfile.TemporaryDirectory(prefix="mvit-") as scratch, signals.raising():
        return _main(scratch)


def _main(scratch: str) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, instead of printing several lines and exiting with 1
    # Hydra makes a folder for a sweep before anything is checked; ours is made when all trials are accepted.
    OmegaConf.register_new_resolver("mvit.scratch", _always(scratch), replace=True)
    argv = list(sys.argv)
    codes: list[int] = []

    def task(composed: DictConfig | list[Any]) -> None:
        # Hydra would print what a task raises in its own words.
        if isinstance(composed, list):  # the trials of a multirun, by hydra_plugins/mvit_launcher.py
            trials = [(overrides, _plain(config)) for overrides, config in composed]
            codes.append(_reported(lambda: launch_sweep(trials, argv=argv)))
        else:
            codes.append(_reported(lambda: launch(_plain(composed), argv=argv)))

    def compose() -> int:
        folders, arguments = _other_folders(argv[1:])
        must_be_sensible([CONF, *folders])
        tried = swept([CONF, *folders])
        # Hydra takes -m and --config-dir before or after all overrides, not between them.
        arguments = sorted((_checked_by_us(a, tried) for a in arguments), key=lambda a: a not in ("-m", "--multirun"))
        sys.argv = [argv[0], *(f"--config-dir={folder}" for folder in folders), *arguments]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
        return max(codes, default=0)

    try:
        return _reported(compose)
    finally:
        sys.argv = argv


def _always(value: str) -> Callable[[], str]:
    return lambda: value


def _plain(composed: DictConfig) -> dict[str, Any]:
    """Ordinary dicts and lists; past this line there is no DictConfig. A missing value is the text `???`."""
    raw = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    return cast(dict[str, Any], raw)


def _other_folders(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """What Hydra's --config-dir names, where else it looks for configuration; and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path, action="append", default=[])
    found, others = parser.parse_known_args(arguments)
    return found.config_dir, others


def _checked_by_us(argument: str, tried: frozenset[str]) -> str:
    """`key=value` as `++key=value`: Hydra stops at the first unknown key, `mvit.check` lists all that is wrong.

    Not for what an experiment has tried itself, whose values this one replaces.
    """
    key, equals, value = argument.partition("=")
    if key.startswith(("-cp", "--config-p")):
        raise ConfigError(Problem(key, None, "would replace conf/", "add a folder with --config-dir"))
    if key.startswith("--e"):
        raise ConfigError(Problem(key, None, "would read a pickle, which can execute anything", "launch it anew"))
    if key.lstrip("+~") == "":
        raise ConfigError(Problem(argument, None, "names no key", "write one, and its value after ="))
    elsewhere = ("hydra.callbacks", "hydra/callbacks", "hydra.searchpath")
    if any(word in argument for word in EXECUTES) or key.lstrip("+~").startswith(elsewhere):
        rule = "is refused: a configuration is data and executes nothing"
        raise ConfigError(Problem(key.lstrip("+~"), None, rule, "leave it out"))
    is_group = "/" in key or "@" in key or (CONF / key).is_dir()
    if is_group and "null" in value.split(",") and key != "experiment":
        options = [path.stem for path in (CONF / key).glob("*.yaml")]
        raise ConfigError(Problem(key, "null", "is no option of the group", nearest("null", options)))
    if not equals or key[:1] in "+~-" or is_group or key in tried or key.startswith("hydra."):
        return argument
    return f"++{argument}"


def _reported(act: Callable[[], int]) -> int:
    """The exit code of `act`; a wrong request is one line per problem, never a traceback."""
    try:
        return act()
    except signals.Interrupted as stopped:  # before or after the run itself, which ends its own processes
        return stopped.exit_code
    except ConfigError as error:
        console.complain(str(problem) for problem in error.problems)
    except RunDirError as error:
        console.complain([hidden(str(error))])
    except MissingConfigException as error:
        console.complain([_missing_option(error)])
    except InterpolationResolutionError as error:
        console.complain([f"{error.full_key}: cannot be resolved: {_first_line(error)}"])
    except (HydraException, OmegaConfBaseException) as error:
        said = _first_line(error).replace("++", "", 1)
        if said.startswith("LexerNoViableAlt"):  # the name of a class of the parser
            said = f"{said.partition(': ')[2]}: has a character that must be quoted twice; write \"key='value'\""
        if said.startswith("Ambiguous value"):
            said += "; add -m to try each of them"
        console.complain([said])
    except ValueError as error:  # of its flags, as --resolve without --cfg
        if "hydra" not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts:
            raise
        console.complain([_first_line(error)])
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
