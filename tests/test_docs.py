"""The pages: what they tell a reader to type works, what they name exists, and their links lead somewhere."""

import argparse
import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from mvit.cli import main as cli
from mvit.config import CommonConfig
from mvit.errors import ConfigError, Problem
from mvit.parent.freeze import plan_launch
from mvit.parent.host import this_host
from mvit.parent.request import command_line
from mvit.parent.request.check import parse
from mvit.parent.request.compose import override
from mvit.parent.sweep.launch import parse_request
from tests.conftest import CHECKOUT, COMPOSER, raw_config

GUIDES = sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs/guides").glob("*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/performance.md", *GUIDES]
HEADERS = sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "experiments").rglob("*.yaml"))
EVERYTHING = [*PAGES, "docs/configuration.md", "experiments/README.md", *HEADERS]
NOT_HERE = {"data.root", "data.images", "task.checkpoint", "init.checkpoint"}
"""Keys whose value is a path that a reader has and this checkout has not."""
MADE_BY_A_DIFF = {"optimizer=rmsprop", "data=gradients", "model=xxx_small", "task=read"}
"""tests/test_contributing.py runs these."""
ELSEWHERE = {"--config-dir"}
"""tests/test_package.py runs these."""


def text_of(page: str) -> str:
    """A page with continued lines joined, and without the `#` of a header."""
    text = (CHECKOUT / page).read_text()
    if page.endswith(".yaml"):
        text = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#"))
    return re.sub(r" \\\n +", " ", text)


def commands(program: str) -> Iterator[tuple[str, str]]:
    """The page and the arguments of each mention of a command, up to the end of its line, code span or comment."""
    for page in EVERYTHING:
        for found in re.findall(rf"{program}(?![\w.])([^`\n]*)", text_of(page), re.MULTILINE):
            arguments = re.split(r"\s{2,}|\)? +#|[,.;:)]? *$", found.strip(), maxsplit=1)[0]
            if "[" not in arguments or "=[" in arguments:
                yield page, arguments
            else:  # what may be left out
                yield page, re.sub(r" *\[[^]]*\]", "", arguments)
                yield page, re.sub(r"[][]", "", arguments)


INSTALLED = r"(?:`|^ {4,})mvit"
LAUNCHES = [
    (page, arguments)
    for program in (r"python launch\.py", f"(?:python -m mvit|{INSTALLED}) launch")
    for page, arguments in commands(program)
    if not (MADE_BY_A_DIFF | ELSEWHERE) & set(arguments.split())
]
COMMANDS = [*commands("python -m mvit(?! launch)"), *commands(f"{INSTALLED}(?= [a-z-])(?! launch)")]


def typed(arguments: str) -> list[str]:
    return [word for word in shlex.split(arguments) if word not in ("...", "[overrides]")]


@pytest.mark.parametrize("arguments", dict.fromkeys(arguments for _, arguments in LAUNCHES))
def test_a_launch_that_a_page_shows_is_legal(arguments, tmp_path):
    words = typed(arguments)
    line = command_line.read(words)
    if line.shows or line.many or COMPOSER.is_sweep(line.overrides):
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
    assert len([page for page, _ in LAUNCHES if page == "README.md"]) > 15
    assert {page for page, _ in LAUNCHES} >= {path for path in HEADERS if path.count("/") == 1}


@pytest.mark.parametrize("page", EVERYTHING)
def test_a_make_target_that_a_page_names_exists(page):
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4,}(?:\w+=\S+ )?)make ([a-z]+)", text_of(page), re.MULTILINE))
    assert named <= targets


def test_the_readme_names_every_make_target_that_make_help_lists():
    listed = set(re.findall(r"^([a-z]+):.*## ", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    pages = text_of("README.md") + text_of("CONTRIBUTING.md")
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
    named = re.findall(r"`((?:mvit|conf|tests|docs|experiments|benchmarks|hydra_plugins)/[\w./<>-]*|launch\.py)`", text)
    assert [path for path in named if "<" not in path and not (CHECKOUT / path).exists()] == []


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


def test_every_file_of_a_run_folder_is_in_the_readme():
    text = text_of("README.md")
    folder = source_of("mvit/rundir/paths.py", "RunDir")
    files = set(re.findall(r'self\.path / "([\w.]+)"', folder))
    transient = {"stop.json", "stop_at.json", "ledger.jsonl"}
    assert {name for name in files - transient if name not in text} == set()


def test_every_key_of_the_launcher_itself_is_in_the_readme():
    own = {name for name, field in CommonConfig.model_fields.items() if field.annotation is bool}
    assert {key for key in own if f"{key}=true" not in text_of("README.md")} == set()
