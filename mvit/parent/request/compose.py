"""Requests: from overrides to the plain values of a run, with every problem at once.

`compose` makes a new run of conf/, an experiment and overrides; `override` changes a run that exists, `override_sweep`
a sweep. All set single values by the same code, and parse them with Hydra's grammar. Hydra composes the choices of
groups.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from mvit.config import RunConfig
from mvit.credentials import hidden
from mvit.errors import ConfigError, Problem, first_line
from mvit.files import as_utf8
from mvit.parent.request import keys
from mvit.parent.request.check import check
from mvit.parent.request.command_line import CommandLine
from mvit.parent.request.inherit import Explicit, inherited
from mvit.parent.request.keys import CONF
from mvit.parent.request.paths import absolute_settings, make_absolute
from mvit.parent.request.yaml_files import EXECUTES, must_be_sensible, swept
from mvit.program import REFERENCE
from mvit.sweep_config import SweepConfig

ROOT = "config"
"""The file of conf/ that everything is composed from."""
SEVERAL = "has several values"
"""The rule of a problem that a sweep has not."""
ELSEWHERE = ("hydra.callbacks", "hydra/callbacks", "hydra.searchpath")


def compose(
    overrides: Sequence[str], config_dirs: Sequence[Path] = (), *, problems: Sequence[Problem] = ()
) -> dict[str, Any]:
    """The values of a new run, not checked yet; raises `ConfigError` with all that is wrong, `problems` before it.

    What the weights that it names were made with takes the place of defaults; see `inherit`.
    """
    return Composer(tuple(config_dirs)).compose(overrides, problems=problems)


def override(config: RunConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """The values of a run that exists, with some of them changed; raises `ConfigError` with all that is wrong."""
    raw, problems = _changed(config.model_dump(mode="json"), overrides, example="optimizer.lr=1e-3")
    if problems := [*problems, *check(raw)[1]]:
        raise ConfigError(*problems)
    return raw


def override_sweep(sweep: SweepConfig, overrides: Sequence[str]) -> SweepConfig:
    """A sweep that exists, with some of its settings changed; raises `ConfigError` with all that is wrong."""
    raw, problems = _changed({"sweep": sweep.model_dump(mode="json")}, overrides, example="sweep.max_trials=40")
    if problems:
        raise ConfigError(*problems)
    return absolute_settings(raw["sweep"])


def _changed(values: dict[str, Any], overrides: Sequence[str], *, example: str) -> tuple[dict[str, Any], list[Problem]]:
    """Plain values with single ones of them set, and why some were not; `example` is an override that can be."""
    composer = Composer(())
    request = read_overrides(overrides, composer)
    for choice in request.choices:
        request.problems.append(_refusal(choice, composer, example=example))
    changed = OmegaConf.create(values)
    request.set_values(changed)
    raw = _plain(changed)
    make_absolute(raw, frozen=values)
    return raw, request.problems


def _refusal(choice: str, composer: Composer, *, example: str) -> Problem:
    """Why an override that sets no single value is for a launch alone."""
    typed, remedy = choice.lstrip("+~"), f"set single values, such as {example}"
    key = typed.partition("=")[0]
    if choice.startswith("~"):
        rule = "keys can be removed only at launch"
    elif key.startswith("hydra."):
        rule = "Hydra's settings can be changed only at launch"
    elif composer.is_group(key):
        rule = "groups can be chosen only at launch"
    else:
        rule, remedy = "keys can be added only at launch", f"use {typed}"
    return Problem(choice, None, rule, remedy)


@dataclass
class Request:
    """Overrides, sorted into what Hydra composes and single values, and what is wrong with them."""

    choices: list[str] = field(default_factory=list[str])
    values: list[Override] = field(default_factory=list[Override])
    problems: list[Problem] = field(default_factory=list[Problem])
    hidden: set[str] = field(default_factory=set[str])
    """Groups and keys without the value that was meant: their other problems may be due to that."""

    def set_values(self, config: DictConfig) -> None:
        """Set the single values, as Hydra would with ++."""
        for one in self.values:
            try:
                OmegaConf.update(config, one.key_or_group, one.value(), merge=True, force_add=True)
            except OmegaConfBaseException as error:
                rule = f"cannot be set: {hidden(first_line(error))}"
                self.problems.append(Problem(one.key_or_group, one.value(), rule, f"see {REFERENCE}"))

    def hides(self, problem: Problem) -> bool:
        return bool(self.hidden & {"experiment", problem.path, problem.path.split(".")[0]})


@dataclass(frozen=True)
class Composer:
    """Folders of configuration, those that were named before conf/, and what was composed of them.

    Each choice of groups is composed once: for the trials of a sweep, an edit of a file comes too late.
    """

    config_dirs: tuple[Path, ...] = ()
    _composed: dict[tuple[str, ...], DictConfig] = field(default_factory=dict[tuple[str, ...], DictConfig])

    def compose(self, overrides: Sequence[str], *, problems: Sequence[Problem] = ()) -> dict[str, Any]:
        """As the function of this name."""
        request = read_overrides(overrides, self)
        request.problems[:0] = problems
        composed = self.composed(request)
        try:
            raw = _filled(composed, request, self)
        except InterpolationResolutionError as error:
            problem = Problem(error.full_key or ROOT, None, "cannot be resolved", hidden(first_line(error)))
            raise ConfigError(*request.problems, problem) from error
        raw.pop("sweep", None)
        if request.problems:
            _, more = check(raw)
            raise ConfigError(*request.problems, *(one for one in more if not request.hides(one)))
        return raw

    def sweep(self, overrides: Sequence[str]) -> SweepConfig:
        """How these runs, one of which the overrides make, are gone through; raises `ConfigError`."""
        request = read_overrides(overrides, self)
        composed = self.composed(request)
        request.set_values(composed)
        return absolute_settings(_plain(composed.sweep))

    def is_sweep(self, overrides: Sequence[str]) -> bool:
        """Whether an experiment, or a value of Hydra's, asks for several runs; False where `compose` refuses them."""
        if not any(re.match(r"\+?(experiment|hydra)\b", text) for text in overrides):
            return False
        request = read_overrides(overrides, self)
        if any(problem.rule != SEVERAL for problem in request.problems):
            return False
        try:
            return str(OmegaConf.select(self.composed(request), "hydra.mode")).endswith("MULTIRUN")
        except ConfigError:
            return False

    @cached_property
    def loader(self) -> ConfigLoaderImpl:
        must_be_sensible([CONF, *self.config_dirs])
        for folder in self.config_dirs:
            if not folder.is_dir():
                raise ConfigError(Problem("--config-dir", str(folder), "is not a folder", "name one that exists"))
        path = create_config_search_path(str(CONF))
        for folder in self.config_dirs:
            anchor = SearchPathQuery(provider="schema", path=None)
            path.prepend(provider="command-line", path=f"file://{folder.absolute()}", anchor=anchor)
        return ConfigLoaderImpl(config_search_path=path)

    def is_group(self, key: str) -> bool:
        group = key.partition("@")[0]
        return "/" in group or "@" in key or any((folder / group).is_dir() for folder in (CONF, *self.config_dirs))

    def options(self, group: str) -> list[str]:
        names = {file.stem for folder in (CONF, *self.config_dirs) for file in (folder / group).glob("*.yaml")}
        return sorted(names - {"README"})

    def has_option(self, group: str, option: str) -> bool:
        return any((folder / group / f"{option}.yaml").is_file() for folder in (CONF, *self.config_dirs))

    def composed(self, request: Request) -> DictConfig:
        """What Hydra makes of the choices. A choice that cannot be made becomes a problem, and is left out."""
        if (earlier := self._composed.get(tuple(request.choices))) is not None:
            return deepcopy(earlier)
        unused: list[tuple[str | None, str]] = []
        while True:
            try:
                config = self.loader.load_configuration(ROOT, request.choices, RunMode.RUN, from_shell=False)
                break
            except (HydraException, OmegaConfBaseException) as error:
                choice = _unused_group(error)
                if choice is None or not keys.owners(choice[1]) or not _drop(*choice, request):
                    raise ConfigError(*request.problems, problem_of_hydra(error)) from error
                unused.append(choice)
        task = f"task={OmegaConf.select(config, 'task.kind')}"
        for file, group in unused:
            remedy = f"remove it, or use {keys.one_of(keys.owners(group))}"
            path, rule = ("experiment", f"sets {group}, ") if file else (group, "")
            value = file.removeprefix("experiment/") if file else None
            request.problems.append(Problem(path, value, f"{rule}not used by {task}", remedy))
        self._composed[tuple(request.choices)] = config
        return deepcopy(config)

    def explicit(self, request: Request) -> Explicit:
        """What was chosen on the command line or by an experiment, rather than by the defaults of conf/."""
        defaults = self.loader.compute_defaults_list(ROOT, request.choices, RunMode.RUN)
        values = {path for one in request.values for path in keys.leaves(one.value(), one.key_or_group)}
        for chosen in defaults.defaults:
            path = chosen.config_path or ""
            if path.startswith("experiment/") and (loaded := self.loader.repository.load_config(path)):
                values |= set(keys.leaves(OmegaConf.to_container(loaded.config, resolve=False)))
        return Explicit(groups=frozenset(defaults.overrides.override_choices), values=frozenset(values))

    def option(self, group: str, name: str) -> dict[str, Any] | None:
        """The values of an option of a group, if there is one of this name."""
        loaded = self.loader.repository.load_config(f"{group}/{name}") if self.has_option(group, name) else None
        return _plain(cast(DictConfig, loaded.config)) if loaded else None


def read_overrides(overrides: Sequence[str], composer: Composer) -> Request:
    """Parse and sort overrides; nothing is composed yet."""
    request = Request()
    parser = OverridesParser.create()
    for text in overrides:
        if problem := _forbidden(text):
            request.problems.append(problem)
            request.hidden.add(problem.path)
            continue
        try:
            one = parser.parse_override(text)
        except (OverrideParseException, HydraException) as error:
            request.problems.append(_unparsed(text, error))
            request.hidden.add(text.partition("=")[0].lstrip("+~"))
            continue
        key = one.get_key_element().lstrip("+~")
        if one.is_sweep_override():
            remedy = "add -m to try each of them, or quote it"
            request.problems.append(Problem(key, text.partition("=")[2], SEVERAL, remedy))
        elif one.is_delete() or (one.is_add() and not one.is_force_add()) or key.startswith("hydra."):
            request.choices.append(text)
        elif composer.is_group(key) and not isinstance(one.value(), dict):
            _choose(one, text, request, composer)
        else:
            request.values.append(one)
    return request


def _choose(one: Override, text: str, request: Request, composer: Composer) -> None:
    """Take the choice of a group, or of one that was probably meant."""
    group = one.key_or_group
    chosen = one.value()
    names = [str(name) for name in chosen] if isinstance(chosen, list) else [str(chosen)]
    if chosen is None and group != "experiment":
        names = ["null"]
    elif chosen is None:
        request.choices.append(text)
        return
    wrong = [name for name in names if not composer.has_option(group, name)]
    options = composer.options(group)
    for name in wrong:
        request.problems.append(Problem(group, name, "is not an option", keys.nearest(name, options)))
    guess = difflib.get_close_matches(names[0], options, n=1)
    if not wrong:
        request.choices.append(text)
    elif len(names) == 1 and guess:  # so that what else is wrong is judged as it was meant
        request.choices.append(f"{one.get_key_element()}={guess[0]}")
    else:
        request.hidden.add(group)


def _drop(file: str | None, group: str, request: Request) -> bool:
    """Leave out what chooses an option of a group that the task does not have; False if nothing does."""
    before = request.choices
    chooser = "experiment" if file else group
    request.choices = [text for text in before if text.partition("=")[0].lstrip("+") != chooser]
    if file:
        request.hidden.add("experiment")
    return len(request.choices) < len(before)


def _filled(composed: DictConfig, request: Request, composer: Composer) -> dict[str, Any]:
    """Plain values, with those of the request set, and those of the weights that it names inherited."""
    with open_dict(composed):
        composed.pop("hydra", None)
    request.set_values(composed)
    raw = _plain(composed)
    if sections := inherited(raw, lambda: composer.explicit(request), option=composer.option):
        # Set before the name of the run is resolved, which is made of the model and the data.
        for section, values in sections.items():
            composed[section] = values
        raw = _plain(composed)
    make_absolute(raw)
    return raw


def _plain(config: DictConfig) -> dict[str, Any]:
    """Ordinary dicts and lists; past this line there is no DictConfig. A missing value is the text `???`."""
    raw = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    return cast(dict[str, Any], raw)


def _forbidden(text: str) -> Problem | None:
    """An override that names nothing or cannot be written down, or would execute something or look elsewhere."""
    key, _, value = as_utf8(text).partition("=")
    key = key.lstrip("+~")
    if not key:
        return Problem(text, None, "has no key", "write one before the =")
    if as_utf8(text) != text:
        return Problem(key, value or None, "is not UTF-8", "use a link with another name")
    if any(word in text for word in EXECUTES) or key.startswith(ELSEWHERE):
        return Problem(key, None, "is refused: a configuration is data and executes nothing", "remove it")
    return None


def as_hydra_takes_it(line: CommandLine) -> list[str]:
    """The overrides for Hydra itself, which then leaves unknown keys to `check`: `key=value` as `++key=value`.

    Not for completions, and not for what an experiment tries several values of, which the command line replaces.
    """
    if line.completes:
        return list(line.overrides)
    folders = [CONF, *line.config_dirs]
    must_be_sensible(folders)
    composer, tried = Composer(line.config_dirs), swept(folders)
    request = read_overrides(line.overrides, composer)
    if problems := [problem for problem in request.problems if problem.rule != SEVERAL]:
        raise ConfigError(*problems)

    def taken(text: str) -> str:
        key, equals, value = text.partition("=")
        if composer.is_group(key) and "null" in value.split(",") and key != "experiment":
            raise ConfigError(Problem(key, "null", "is not an option", keys.nearest("null", composer.options(key))))
        ours = equals and key[:1] not in "+~" and not composer.is_group(key) and key not in tried
        return f"++{text}" if ours and not key.startswith("hydra.") else text

    return [taken(text) for text in line.overrides]


def _unparsed(text: str, error: Exception) -> Problem:
    key, equals, _ = text.partition("=")
    if not equals:
        return Problem(text, None, "has no value", f"write {key}=...")
    line = hidden(first_line(error))
    if line.startswith("token recognition error"):  # the parser's words
        return Problem(text, None, "has a character that must be quoted twice", f"write \"{key}='value'\"")
    return Problem(text, None, "cannot be parsed", f"quote it twice: \"{key}='value'\"")


def problem_of_hydra(error: Exception) -> Problem:
    """Hydra's own finding, as a line of ours."""
    if isinstance(error, MissingConfigException):
        group, _, option = hidden(error.missing_cfg_file or "").rpartition("/")
        options = [name for name in error.options or [] if name != "README"]
        if group and options:
            return Problem(group, option, "is not an option", keys.nearest(option, options))
    line = hidden(first_line(error.__cause__ or error)).removesuffix(".")
    if (group := _unused_group(error)) and (owners := keys.owners(group[1])):
        return Problem(group[1], None, "not used by this task", f"remove it, or use {keys.one_of(owners)}")
    return Problem(ROOT, None, line, "fix the override, or the file that holds it")


def _unused_group(error: Exception) -> tuple[str | None, str] | None:
    """The file, None for the command line, and the group, whose option it chooses without having it in its defaults."""
    match = re.match(r"(?:In '([^']+)': )?Could not override '([^'@]+)", str(error))
    return (match[1], match[2]) if match else None
