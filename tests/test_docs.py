"""The pages: what they tell a reader to type works, what they name exists, and their links lead somewhere."""

import argparse
import ast
import io
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import yaml

from mvit.cli import main as cli
from mvit.cli.main import parsers
from mvit.config import CommonConfig, FailureKind
from mvit.errors import ConfigError, Problem
from mvit.parent.freeze import plan_launch
from mvit.parent.host import this_host
from mvit.parent.request import command_line
from mvit.parent.request.check import parse
from mvit.parent.request.compose import override
from mvit.parent.sweep.launch import parse_request
from mvit.reference import commands as reference_of_commands
from mvit.rundir.ending import RETRYABLE
from mvit.rundir.state import Status
from mvit.rundir.stop import StopReason
from tests import manual
from tests.conftest import CHECKOUT, COMPOSER, raw_config

PAGES = [*manual.PAGES, "CONTRIBUTING.md", "CHANGELOG.md"]
HEADERS = sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "experiments").rglob("*.yaml"))
EVERYTHING = [*PAGES, "experiments/README.md", "experiments/results/README.md", *HEADERS]
NOT_HERE = {"data.root", "data.images", "task.checkpoint", "init.checkpoint"}
"""Keys whose value is a path that a reader has and this checkout has not."""
EXAMPLES = [example for page in manual.PAGES for example in manual.examples(page)]
REFUSED = {example.command.partition("launch.py ")[2] for example in EXAMPLES if example.is_refused}
"""What a page shows for the answer."""
MADE_BY_A_DIFF = {"optimizer=rmsprop", "data=gradients", "model=xxx_small", "task=read"}
"""tests/test_contributing.py runs these."""
ELSEWHERE = {"--config-dir"}
"""tests/test_package.py runs these."""


def text_of(page: str) -> str:
    """A page with continued lines joined, and without the `#` of a header."""
    text = (CHECKOUT / page).read_text()
    if page.endswith(".yaml"):
        text = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#"))
    text = re.sub(r" +# (planned|not executed)$", "", text, flags=re.MULTILINE)
    return re.sub(r" \\\n +", " ", text)


def commands(program: str) -> Iterator[tuple[str, str]]:
    """The page and the arguments of each mention of a command, up to the end of its line, code span or comment."""
    for page in EVERYTHING:
        if page == "docs/reference/commands.md":  # usage, not commands
            continue
        for found in re.findall(rf"{program}(?![\w.])([^`\n]*)", text_of(page), re.MULTILINE):
            arguments = re.split(r"\s{2,}|\)? +#| \(|[,.;:)]? *$", found.strip(), maxsplit=1)[0]
            if arguments.count('"') % 2:  # the command is itself quoted
                arguments = arguments.rstrip('"')
            if "[" not in arguments or "=[" in arguments:
                yield page, arguments
            else:  # what may be left out
                yield page, re.sub(r" *\[[^]]*\]", "", arguments)
                yield page, re.sub(r"[][]", "", arguments)


INSTALLED = r"(?:`|^ {4,}|^\$ )mvit"
LAUNCHES = [
    (page, arguments)
    for program in (r"python launch\.py", f"(?:python -m mvit|{INSTALLED}) launch")
    for page, arguments in commands(program)
    if not (MADE_BY_A_DIFF | ELSEWHERE) & set(arguments.split()) and arguments not in REFUSED
]
COMMANDS = [*commands("python -m mvit(?! launch)"), *commands(f"{INSTALLED}(?= [a-z-])(?! launch)")]


def typed(arguments: str) -> list[str]:
    return [word for word in shlex.split(arguments) if word not in ("...", "[overrides]")]


@pytest.mark.parametrize("arguments", dict.fromkeys(arguments for _, arguments in LAUNCHES))
def test_a_launch_that_a_page_shows_is_legal(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # what `data.images=-` reads
    words = typed(arguments)
    line = command_line.read(words)
    if line.shows or line.many or COMPOSER.is_sweep(line.overrides):
        if any(example.command == f"python launch.py {arguments}" for example in EXAMPLES):
            return  # executed by tests/e2e/test_manual.py
        command = [sys.executable, str(CHECKOUT / "launch.py"), *words, *([] if line.shows else ["dry_run=true"])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        problems = done.stderr.splitlines()
        assert done.returncode == (2 if problems else 0)
        assert [problem for problem in problems if not any(f"{key}:" in problem for key in NOT_HERE)] == []
        return
    assert not line.problems
    overrides = list(line.overrides)
    if line.config_dirs:  # of a reader, with an experiment on images that `init` wrote
        overrides = ["data=imagefolder", *(text for text in overrides if not text.startswith("experiment="))]
    raw = {**COMPOSER.compose(overrides), "dry_run": True}
    assert parse({**raw, **_filled(raw)})
    assert [str(problem) for problem in problems_of(raw) if problem.path not in NOT_HERE] == []


def problems_of(raw: dict) -> tuple[Problem, ...]:
    """What a launch of this configuration would be refused for."""
    try:
        plan_launch(raw, host=this_host())
    except ConfigError as error:
        return error.problems
    return ()


def _filled(raw: dict) -> dict:
    """The sections with an unset path, with one."""
    missing = [key.split(".") for key in NOT_HERE]
    return {s: {**raw[s], key: "/somewhere"} for s, key in missing if raw.get(s, {}).get(key) == "???"}


@pytest.mark.parametrize("arguments", dict.fromkeys(arguments for _, arguments in COMMANDS))
def test_a_command_that_a_page_shows_exists(arguments, monkeypatch, capsys):
    parsed: list[argparse.Namespace] = []
    for module in cli.COMMANDS:
        monkeypatch.setattr(module, "act", lambda given: parsed.append(given) or 0)
    words = typed(arguments)
    if not words or words == ["COMMAND", "--help"]:
        return
    if len(words) == 1 and words != ["docs"]:  # named, not shown
        words.append("--help")
    if words[-1] == "--help":
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        assert end.value.code == 0, capsys.readouterr().err
        return
    assert cli.main(words) == 0
    (given,) = parsed
    if "SWEEP" in words:
        kind = "search" if "max_trials" in arguments else "grid"
        overrides = given.overrides if "overrides" in given else []
        assert parse_request([f"sweep={kind}", "seed=1,2", *overrides], COMPOSER)
    elif "overrides" in given and given.overrides:
        assert parse(override(parse(raw_config()), given.overrides))


def test_the_pages_show_launches_and_every_command():
    shown = {typed(arguments)[0] for _, arguments in COMMANDS if typed(arguments)}
    assert {module.__name__.rpartition(".")[2] for module in cli.COMMANDS} - {"docs", "launch"} <= shown
    assert len([page for page, _ in LAUNCHES if page in manual.PAGES]) > 30
    assert {page for page, _ in LAUNCHES} >= {path for path in HEADERS if path.count("/") == 1}


@pytest.mark.parametrize("page", EVERYTHING)
def test_a_make_target_that_a_page_names_exists(page):
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4,}(?:\w+=\S+ )?)make ([a-z]+)", text_of(page), re.MULTILINE))
    assert named - {"them"} <= targets  # of a message: make them the same


def test_a_page_names_every_make_target_that_make_help_lists():
    listed = set(re.findall(r"^([a-z]+):.*## ", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    pages = "".join(map(text_of, [*manual.PAGES, "CONTRIBUTING.md"]))
    assert {target for target in listed if f"make {target}" not in pages} <= {"help", "clean"}


@cache
def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ +(.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", [page for page in EVERYTHING if page.endswith(".md")])
def test_a_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", (CHECKOUT / page).read_text())
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (CHECKOUT / page).parent / path if path else CHECKOUT / page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@pytest.mark.parametrize("page", PAGES)
def test_a_file_that_a_page_names_exists(page):
    if page == "CHANGELOG.md":
        return
    text = re.sub(r"^```diff\n.*?^```$", "", (CHECKOUT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    folders = "mvit|conf|tests|docs|experiments|benchmarks|hydra_plugins"
    named = re.findall(rf"`((?:{folders})/[\w./<>*-]*|launch\.py)`", text)
    assert [path for path in named if "<" not in path and not any(CHECKOUT.glob(path))] == []


def test_the_workflow_runs_what_a_contributor_runs():
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [re.search(r"\bmake \w+", step["run"]) for step in steps if "run" in step]
    assert [found[0] for found in commands if found] == ["make check", "make test", "make canary"]


# --- docs/architecture.md

HOP = re.compile(r"^(\d+)\. `([\w./]+)` `([\w.]+)`: (\((?:process|file)\) )?\S", re.MULTILINE)


def source_of(path: str, name: str) -> str:
    """The source of a function, or of a method as `Class.method`."""
    text = (CHECKOUT / path).read_text()
    body: list[ast.stmt] = ast.parse(text).body
    found: ast.stmt | None = None
    for part in name.split("."):
        definitions = (ast.FunctionDef, ast.ClassDef)
        found = next((node for node in body if isinstance(node, definitions) and node.name == part), None)
        assert found is not None, f"{path} has no {name}"
        body = found.body
    assert found is not None
    return ast.get_source_segment(text, found) or ""


def test_a_metric_reaches_mlflow_in_at_most_16_hops_each_called_by_one_before_it():
    hops = HOP.findall(text_of("docs/architecture.md"))
    assert [int(number) for number, *_ in hops] == list(range(1, len(hops) + 1))
    assert 10 <= len(hops) <= 16
    assert (hops[0][1], hops[0][2]) == ("launch.py", "main")
    sources: list[str] = []
    for _, path, name, boundary in hops:
        leaf = name.rpartition(".")[2]
        if sources and not boundary:
            assert any(re.search(rf"\b{leaf}\(", source) for source in sources), name
        sources.append(source_of(path, name))
    assert [boundary for *_, boundary in hops if boundary] == ["(process) ", "(file) "]
    assert "log_batch(" in sources[-1]


# --- the reference


def code() -> dict[Path, ast.Module]:
    """The program, without its tests."""
    return {path: ast.parse(path.read_text()) for path in [*(CHECKOUT / "mvit").rglob("*.py"), CHECKOUT / "launch.py"]}


@cache
def strings() -> frozenset[str]:
    """Every string in the code; of one with values in it, the parts between them."""
    nodes = (node for tree in code().values() for node in ast.walk(tree))
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def first_column(page: str) -> list[str]:
    """What the tables of a page explain."""
    cells = re.findall(r"^\| (`[^|]*?) \|", (CHECKOUT / page).read_text(), re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_reference_of_the_commands_is_what_the_code_says():
    page = CHECKOUT / "docs/reference/commands.md"
    assert page.read_text() == reference_of_commands(parsers()[1].choices), "run: make docs"


def test_the_reference_explains_every_file_of_a_run_folder():
    text = text_of("docs/reference/run-folder.md")
    folder = source_of("mvit/rundir/paths.py", "RunDir")
    files = set(re.findall(r'self\.path / "([\w.]+)"', folder))
    assert len(files) > 15
    assert {name for name in files if name not in text} == set()


def test_the_reference_explains_every_status_as_ls_shows_it():
    explained = set(re.findall(r"^\| ([A-Z]+) \|", text_of("docs/reference/run-folder.md"), re.MULTILINE))
    assert explained == {*get_args(Status), "QUEUED"}


def test_the_manual_shows_every_key_of_the_launcher_itself():
    own = {name for name, field in CommonConfig.model_fields.items() if field.annotation is bool}
    shown = " ".join(arguments for page, arguments in LAUNCHES if page in manual.PAGES)
    assert {key for key in own if f"{key}=true" not in shown} == set()


def test_the_reference_explains_every_metric_that_the_code_writes_and_no_other():
    explained = set(first_column("docs/reference/metrics.md"))
    written = {text for text in strings() if re.fullmatch(r"(train|val|best|perf|system)/[a-z0-9_]+[a-z0-9]", text)}
    assert {"train/loss", "perf/step_ms", "best/epoch"} <= written
    assert written - explained - {"perf/compile", "val/acc", "val/ema", "val/ema_acc"} == set()
    # Those that are put together: the clocks of a step, the phases of a compilation, the scores of an evaluation.
    made = {"perf/data_wait_pct", "perf/all_reduce_pct", "perf/other_load_pct"}
    made |= {f"perf/compile_{phase}_s" for phase in ("type_inference", "optimize", "task_emit")}
    made |= {f"val/{average}{score}" for average in ("", "ema_") for score in ("loss", "acc1", "acc5")}
    assert explained - written - made == set()


def test_the_reference_explains_every_exit_code_and_class_of_failure():
    text = text_of("docs/reference/exit-codes.md")
    codes = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    signals = {128 + number for number in (signal.SIGINT, signal.SIGTERM)}
    assert codes == {0, 1, 2, StopReason(kind="pause").exit_code, *signals}
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (yes|) ?\|$", text, re.MULTILINE))
    assert set(rows) == set(get_args(FailureKind))
    assert {kind for kind, again in rows.items() if again == "yes"} == RETRYABLE


OF_NOBODY = {
    *("HYDRA_FULL_ERROR", "LC_ALL", "MASTER_ADDR", "RUN_DIR", "MVIT_FAULT", "DEVICE_ID", "RANK_ID"),
    *("FIRST_20_RUNS", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"),
    *("REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
}
"""What is spelled like a variable, and is none, or none between a person and mvit."""


def test_the_reference_explains_every_environment_variable():
    explained = set(first_column("docs/reference/environment.md"))
    variable = re.compile(r"[A-Z]{2,}\d*(_[A-Z0-9]+)+|CXX|PATH|DISPLAY|PYTHONPATH")
    spelled = {text for text in strings() if variable.fullmatch(text)}
    inner = ("GIT_", "SC_", "MS_", "MLFLOW_")  # of git, of sysconf, between msrun and its workers, of MLflow's server
    own = {name for name in spelled - OF_NOBODY if not name.startswith(inner)}
    assert own - explained == set()
    everywhere = "\n".join(strings())
    by_mlflow = {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"}
    assert {name for name in explained - by_mlflow if name not in everywhere} == set()


def test_a_message_that_troubleshooting_explains_exists():
    messages = re.findall(r"^\| `([^`]+)` \|", text_of("docs/troubleshooting.md"), re.MULTILINE)
    assert len(messages) > 60
    everywhere = "\n".join([*strings(), (CHECKOUT / "Makefile").read_text()])
    parts = [(message, part.strip(" ,:;")) for message in messages for part in message.split("...")]
    assert [message for message, part in parts if part and part not in everywhere] == []


# --- the site


def test_the_site_builds_strictly_and_fetches_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(manual.DOCS)
    fetched = re.compile(r"<(?:link|script|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//", re.IGNORECASE)
    assert [page.name for page in pages if fetched.search(page.read_text())] == []
    styles = [sheet.read_text() for sheet in (tmp_path / "site").rglob("*.css")]
    assert not [1 for sheet in styles if re.search(r"url\([\"']?https?:|@import", sheet)]


def test_the_navigation_has_every_page():
    navigation = (CHECKOUT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert sorted(f"docs/{page}" for page in re.findall(r"([\w/-]+\.md)$", navigation, re.MULTILINE)) == manual.DOCS


def test_every_page_of_the_navigation_is_linked_from_the_readme_or_its_index():
    linked = text_of("README.md") + text_of("docs/index.md").replace("](", "](docs/")
    assert [page for page in manual.DOCS if f"]({page}" not in linked and page != "docs/index.md"] == []


# --- commands

NOT_EXECUTED = {
    "docs/reference/commands.md": "usage",
    "docs/architecture.md": "a drawing",
    "docs/performance.md": "benchmarks, which take their time",
    "docs/guides/package.md": "of the installed command: tests/test_package.py",
}
"""Pages whose commands tests/e2e/test_manual.py does not execute, and why."""


def test_every_command_that_stands_alone_on_a_page_is_one_that_a_test_executes():
    """Those of `console` blocks are, by tests/e2e/test_manual.py; in a line of text a command is named, not shown."""
    alone = re.compile(r"^(?:    )?(?:\$ )?(python (?:launch\.py|-m mvit)\b.*|make [a-z]+.*)$", re.MULTILINE)
    executed = {example.command for example in EXAMPLES}
    for page in manual.PAGES:
        if page in NOT_EXECUTED:
            continue
        shown = [line.split("  # ")[0].rstrip() for line in alone.findall(text_of(page))]
        assert [line for line in shown if line not in {*executed, "make test"}] == [], page


def test_what_is_not_executed_says_so_and_is_little():
    marks = Counter(example.mark for example in EXAMPLES)
    print(dict(marks))
    assert marks["not executed"] <= 10
    assert marks[""] > 3 * marks["planned"]
