"""The floors of the house: who may import whom, and what a light command loads."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

MODULES = sorted([*(CHECKOUT / "mvit").rglob("*.py"), CHECKOUT / "launch.py"])


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def messages(path: Path) -> set[str]:
    """The texts of a module, but for docstrings and comments."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return {node.value for node in constants if isinstance(node.value, str)}


def users(*packages: str) -> set[str]:
    return {
        str(path.relative_to(CHECKOUT))
        for path in MODULES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path) for package in packages)
    }


def test_launch_and_train_never_import_each_other():
    assert not {path for path in users("mvit.worker") if path.startswith("mvit/parent/")}
    assert not {path for path in users("mvit.parent") if path.startswith(("mvit/worker/", "mvit/models/"))}


def test_the_parent_never_imports_mindspore():
    outside = {path for path in users("mindspore") if not path.startswith(("mvit/worker/", "mvit/models/"))}
    assert outside == {"mvit/data/shard_writer.py"}
    assert users("mvit.data.shard_writer") == {"mvit/data/pack.py"}


def test_collectives_are_in_one_module():
    words = ("mindspore.communication", "AllReduce", "AllGather", "ReduceScatter", "Broadcast(", "Barrier(")
    found = {str(path.relative_to(CHECKOUT)) for path in MODULES if any(word in path.read_text() for word in words)}
    assert found == {"mvit/worker/collectives.py"}


def test_hydra_is_imported_where_requests_are_composed_alone():
    outside = {path for path in users("hydra", "omegaconf") if not path.startswith("mvit/parent/request/")}
    assert outside <= {"mvit/cli/hydra_entry.py", "mvit/models/weights.py"}


def test_mlflow_is_imported_by_what_writes_to_a_store_or_reads_it_alone():
    assert users("mlflow") == {f"mvit/parent/tracking/{name}.py" for name in ("store", "mirror", "model", "fetch")}


def test_what_a_person_may_type_next_is_worded_in_one_file():
    """An installed mvit is called otherwise than launch.py is; what config.py and reference.py say is documentation."""
    words = ("python -m mvit", "python launch.py")
    found = {
        str(path.relative_to(CHECKOUT))
        for path in MODULES
        for text in messages(path)
        if any(word in text for word in words)
    }
    assert found == {"launch.py", "mvit/program.py", "mvit/config.py", "mvit/reference.py"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["optimizer.lrr=1", "train.epochs=x"], 2), (["model=huge"], 2), (["dry_run=true"], 0)],
)
def test_a_light_command_loads_neither_mindspore_nor_mlflow(arguments, code, tmp_path):
    program = (
        "import sys, runpy; code = 0; sys.argv = ['launch.py', *sys.argv[2:]]\n"
        "try: runpy.run_path(sys.path[0] + '/launch.py', run_name='__main__')\n"
        "except SystemExit as end: code = end.code or 0\n"
        "heavy = {'mindspore', 'mlflow', 'sklearn', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n{program}", "-"]
    began = time.perf_counter()
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)
    print(f"{arguments}: {time.perf_counter() - began:.2f} s")
    assert done.returncode == code, done.stderr
    assert list(tmp_path.iterdir()) == []
