"""What made a run, from real repositories."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mvit import __version__
from mvit.parent import provenance
from mvit.parent.provenance import code_of, collect

CHECKOUT = Path(__file__).resolve().parents[2]


def git(where: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main")
    return subprocess.run(("git", *who, *arguments), cwd=where, check=True, capture_output=True).stdout.decode()


@pytest.fixture
def repository(tmp_path) -> Path:
    where = tmp_path / "repository"
    where.mkdir()
    git(where, "init")
    (where / "code.py").write_text("a = 1\n")
    git(where, "add", ".")
    git(where, "commit", "-m", "first")
    return where


def made_of(where: Path, *argv: str):
    return collect(where, argv=["launch.py", *argv], dataset_fingerprint="f00")


def test_a_clean_checkout_has_its_commit_and_no_patch(repository):
    content, patch = made_of(repository)
    assert content["commit"] == git(repository, "rev-parse", "HEAD").strip()
    assert content["branch"] == "main"
    assert content["dirty"] is False
    assert patch == ""


def test_the_patch_makes_the_uncommitted_code_again(repository, tmp_path):
    git(repository, "clone", "-q", ".", str(tmp_path / "clone"))
    (repository / "code.py").write_bytes("a = 'é'\r\n".encode("latin-1"))
    (repository / "data.bin").write_bytes(bytes(range(256)))
    git(repository, "add", "data.bin")
    (repository / "ü new.py").write_text("b = 1\n")
    git(repository, "config", "diff.noprefix", "true")
    content, patch = made_of(repository)
    assert content["dirty"] is True
    assert (content["num_changed"], content["num_untracked"], content["untracked"]) == (2, 1, ["ü new.py"])
    saved = tmp_path / "code.patch"
    saved.write_text(patch, encoding="utf-8", errors="surrogateescape", newline="")
    git(tmp_path / "clone", "apply", str(saved))
    for name in ("code.py", "data.bin"):
        assert (tmp_path / "clone" / name).read_bytes() == (repository / name).read_bytes()


def test_a_patch_over_the_limit_is_cut_and_says_so(monkeypatch, repository):
    monkeypatch.setattr(provenance, "PATCH_LIMIT", 1000)
    (repository / "code.py").write_text("\n".join(map(str, range(1000))))
    content, patch = made_of(repository)
    assert content["patch_cut"] is True
    assert len(patch) < 1100
    assert "cut at" in patch.splitlines()[-1]


def test_a_repository_without_a_commit_gives_everything_as_patch(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    content, patch = made_of(tmp_path)
    assert content["commit"] is None
    assert content["dirty"] is True
    assert "+a = 1" in patch


def test_a_detached_head_has_no_branch(repository):
    git(repository, "checkout", "-q", "--detach")
    content, _ = made_of(repository)
    assert content["branch"] is None
    assert content["commit"]


def test_a_checkout_that_lies_in_a_foreign_repository_does_not_take_its_commit(repository):
    (repository / "unpacked").mkdir()
    content, patch = made_of(repository / "unpacked")
    assert content["commit"] is None
    assert content["dirty"] is None
    assert "not a git repository" in content["git_problem"]
    assert patch == ""


def test_the_repository_git_names_to_its_hooks_is_not_asked(monkeypatch, repository, tmp_path):
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    content, _ = made_of(repository)
    assert content["commit"]


def test_without_git_its_fields_are_null(monkeypatch, repository):
    monkeypatch.setenv("PATH", "/nowhere")
    content, patch = made_of(repository)
    assert content["git_problem"] == "git is not installed"
    assert content["commit"] is None
    assert patch == ""


def test_an_installed_package_has_its_version_and_the_commit_that_pip_installed(monkeypatch, tmp_path):
    """Found like any distribution, in a folder that Python imports from."""
    info = tmp_path / f"mvit-{__version__}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: mvit\nVersion: {__version__}\n")
    monkeypatch.syspath_prepend(tmp_path)
    content, patch = collect(None, argv=["mvit", "launch"], dataset_fingerprint="f00")
    assert (content["mvit"], content["commit"], patch) == (__version__, None, "")
    assert content["git_problem"] == f"mvit {__version__} was not installed from a repository"
    assert code_of(content) == f"mvit {__version__}"
    (info / "direct_url.json").write_text('{"url": "https://host", "vcs_info": {"commit_id": "5eed5eed5eed"}}')
    content, _ = collect(None, argv=["mvit", "launch"], dataset_fingerprint="f00")
    assert (content["commit"], content["num_changed"], content["git_problem"]) == ("5eed5eed5eed", 0, None)
    assert code_of(content) == "5eed5eed5e"
    assert code_of({}) == "unknown"


def test_neither_the_environment_nor_passwords_are_recorded(monkeypatch, repository):
    monkeypatch.setenv("SOME_TOKEN", "s3cret-in-environment")
    content, _ = made_of(repository, "tracking.uri=http://me:s3/cr@et@host:5000/x?token=t0ken")
    assert content["command"] == "launch.py 'tracking.uri=http://host:5000/x?token=***'"
    text = json.dumps(content)
    assert "s3cret" not in text
    assert "t0ken" not in text


def test_it_says_what_the_host_is_and_loads_no_package_for_its_version():
    code = (
        "import json, sys; from pathlib import Path; from mvit.parent.provenance import collect;"
        "found, _ = collect(Path.cwd(), argv=['launch.py'], dataset_fingerprint='f00');"
        "print(json.dumps([found, sorted({'mlflow', 'mindspore', 'numpy', 'omegaconf'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, capture_output=True)
    content, loaded = json.loads(done.stdout)
    assert loaded == []
    assert content["versions"]["pydantic"]
    assert content["processors"] >= content["processors_usable"] >= 1
    assert content["memory_mb"] > 100
    assert content["cpu"]
    assert content["host"]
    assert content["user"]
    assert content["dataset_fingerprint"] == "f00"
    assert isinstance(content["ascend_devices"], list)
