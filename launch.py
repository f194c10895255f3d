"""One run, or with -m many: compose, check, plan, run, mirror. `python launch.py --help`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from mvit import rundir
from mvit.check import ConfigError, Problem, nearest
from mvit.launch import console
from mvit.launch.launcher import launch
from mvit.launch.plan import CHECKOUT
from mvit.launch.sweep import Sweep

CONF = CHECKOUT / "conf"


def main() -> int:
    """Exit codes: 0 finished, 1 a run failed, 2 the request was wrong, 130 and 143 stopped by a signal."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, instead of printing several lines and exiting with 1
    # Hydra takes -m before or after all overrides, not between them.
    arguments = sorted(map(_checked_by_us, sys.argv[1:]), key=lambda argument: argument not in ("-m", "--multirun"))
    asked, sys.argv = sys.argv, [sys.argv[0], *arguments]
    codes: list[int] = []
    sweeps: list[Sweep] = []
    stamp = rundir.stamp()
    OmegaConf.register_new_resolver("mvit.sweep_dir", _sweep_dir(stamp), replace=True)

    def task(composed: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN and not sweeps:
            sweeps.append(Sweep(Path(HydraConfig.get().sweep.dir)))
        codes.append(_reported(lambda: launch(_plain(composed), argv=asked, sweep=sweeps[0] if sweeps else None)))

    application = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)
    codes.append(_reported(lambda: application() or 0))
    for sweep in sweeps:
        sweep.close()
    return max(codes)


def _sweep_dir(stamp: str) -> Callable[[str, str], str]:
    """The folder of a sweep, the same for all its trials."""
    return lambda runs, name: str(CHECKOUT / runs / name / stamp)


def _plain(composed: DictConfig) -> dict[str, Any]:
    """Ordinary dicts and lists; past this line there is no DictConfig."""
    raw = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    return cast(dict[str, Any], raw)


def _checked_by_us(argument: str) -> str:
    """`key=value` as `++key=value`: Hydra stops at the first unknown key, `mvit.config` lists all that is wrong."""
    key, equals, _ = argument.partition("=")
    is_group = "/" in key or "@" in key or (CONF / key).is_dir()
    if not equals or key[:1] in "+~-" or is_group or key.startswith("hydra."):
        return argument
    return f"++{argument}"


def _reported(act: Callable[[], int]) -> int:
    """The exit code of `act`; a wrong request is one line per problem, never a traceback."""
    try:
        return act()
    except KeyboardInterrupt:  # before or after the run itself, which ends its own processes
        return 130
    except ConfigError as error:
        console.complain(str(problem) for problem in error.problems)
    except rundir.RunDirError as error:
        console.complain([str(error)])
    except MissingConfigException as error:
        console.complain([_missing_option(error)])
    except MissingMandatoryValue as error:
        console.complain([f"{error.full_key}: has no value; set {error.full_key}=..."])
    except InterpolationResolutionError as error:
        console.complain([f"{error.full_key}: cannot be resolved: {_first_line(error)}"])
    except (HydraException, OmegaConfBaseException) as error:
        console.complain([_first_line(error)])
    return 2


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = [name for name in error.options or [] if name != "README"]
    if not group or not options:
        return _first_line(error).removeprefix("In 'config': ")
    return str(Problem(group, option, "is no option of the group", nearest(option, options)))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
