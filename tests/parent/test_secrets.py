"""Credentials of the environment, of URLs and of the command line: every byte that is left behind is looked at."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from mvit.cli.main import main
from mvit.config import MlflowTracking
from mvit.credentials import hidden, redacted
from mvit.data import dataset
from mvit.errors import ConfigError, Problem
from mvit.files import read_json, write_json
from mvit.parent import provenance
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.request.check import parse
from mvit.parent.tracking.content import artifacts_of, location, parameters_of, tags_of
from mvit.parent.tracking.dead import close_dead
from mvit.parent.tracking.live import Tracker
from mvit.parent.tracking.store import reason
from mvit.places import PROJECT
from mvit.rundir import paths
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.journal import Journal
from mvit.rundir.tracking import read_record
from tests.conftest import raw_config

PASSWORD = "pa/ss@w0rd-5ecret"
IN_URI = "0f7e-uri-5ecret"
ENVIRONMENT = {
    "MLFLOW_TRACKING_USERNAME": "me",
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "MLFLOW_TRACKING_TOKEN": "tok-5ecret-en",
    "AWS_ACCESS_KEY_ID": "AKIA5ECRETID",
    "AWS_SECRET_ACCESS_KEY": "aws/5ecret+key",
    "AWS_SESSION_TOKEN": "session-5ecret==",
    "HTTPS_PROXY_OF_MINE": "http://proxyuser:proxy-5ecret@proxy:3128",
}
ARGUMENTS = (
    "launch.py",
    "data.root=https://me:arg-5ecret@host/x?token=query-5ecret",
    "hydra.job.env_set.AWS_SECRET_ACCESS_KEY=aws/5ecret+key",
    "hydra.job.env_set.MY_API_KEY=another-5ecret",
    "name=tok-5ecret-en",
    "model.token_projection=linear",
)
SECRETS = [
    *(value for name, value in ENVIRONMENT.items() if not name.endswith(("USERNAME", "MINE"))),
    *("proxy-5ecret", "arg-5ecret", "query-5ecret", "another-5ecret", "remote-5ecret", IN_URI),
]
SECRETS += [form for secret in SECRETS for form in {quote(secret), quote(secret, safe="")} - {secret}]


def found_in(data: bytes) -> list[str]:
    return [secret for secret in [*SECRETS, "5ecret"] if secret.encode() in data]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with credentials in its remote, and the environment's in a change."""
    place = tmp_path.parent / f"{tmp_path.name}-checkout"
    place.mkdir()
    (place / "notes.txt").write_text("nothing\n")
    for command in (
        ("init", "-q"),
        ("remote", "add", "origin", "https://oauth2:remote-5ecret@git.example/x.git"),
        ("add", "notes.txt"),
        ("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"),
    ):
        subprocess.run(("git", *command), cwd=place, check=True)
    (place / "notes.txt").write_text("key aws/5ecret+key of ours\n")
    return place


@pytest.mark.mlflow
def test_no_byte_of_a_mirrored_run_holds_a_credential(capfd, checkout, configured, monkeypatch, served, tmp_path):
    served.up()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    uri = f"http://me:{IN_URI}@{served.address}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = paths.create_run_dir(tmp_path / "runs" / "20260101-000000-aaaa")
    config = configured()
    facts = dataset.survey(config.data).facts
    run = Run(folder, config, make_plan(config, host=this_host(), facts=facts))
    write_run(run)
    made_of, patch = provenance.collect(checkout, argv=list(ARGUMENTS), dataset_fingerprint=facts.fingerprint)
    assert made_of["git_problem"] is None
    write_json(folder.provenance, made_of)
    folder.patch.write_text(patch)
    journal = Journal(folder.journal)
    journal.metrics({"train/loss": 1.0}, step=1, epoch=0)
    journal.close()
    params, tags = parameters_of(run), tags_of(run)
    where = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")
    tracker = Tracker(folder, tracking=where, uri=uri, params=params, tags=tags)
    tracker.start()
    said = [str(tracker.finish("FAILED", artifacts=artifacts_of(folder, status="FAILED"), tags={}))]
    record = read_record(folder)
    assert record is not None
    assert record.run_in(uri)
    said += [str(location(folder, name="a run")), str(close_dead(folder, "FAILED"))]
    write_json(folder.result, {"metrics": {}})
    assert main(["sync", str(folder.path)]) == 0  # with the environment's credentials
    served.down()
    assert main(["sync", str(folder.path)]) == 1
    said.append(str(close_dead(folder, "FAILED")))
    down = Tracker(folder, tracking=where, uri=uri, params=params, tags=tags)
    down.start()
    said.append(str(down.finish("FAILED", artifacts=[], tags={})))
    assert "connection refused" in said[-1]

    output = "".join((*capfd.readouterr(), *said, served.said))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"run.json", "provenance.json", "code.patch", "tracking.json", "mlflow.db"} <= {path.name for path in files}
    assert any("mlartifacts" in path.parts and path.name == "provenance.json" for path in files)
    assert found_in(output.encode()) == []
    assert {path: found for path in files if (found := found_in(path.read_bytes()))} == {}
    command = read_json(folder.provenance)["command"]
    assert command == (
        "launch.py 'data.root=https://host/x?token=***' 'hydra.job.env_set.AWS_SECRET_ACCESS_KEY=***'"
        " 'hydra.job.env_set.MY_API_KEY=***' 'name=***' model.token_projection=linear"
    )
    assert "+key *** of ours\n" in folder.patch.read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see http://me:p@h/x and http://tok@h?secret=1&a=b", "see http://h/x and http://h?secret=***&a=b"),
        ("Authorization: Bearer abcdefghij.k", "Authorization: Bearer ***"),
        ("a.MY_TOKEN=x a.token_projection=x", "a.MY_TOKEN=*** a.token_projection=x"),
        ("AWS_ACCESS_KEY_ID=AKIA", "AWS_ACCESS_KEY_ID=***"),
        ("basic training of a model", "basic training of a model"),
    ],
)
def test_credentials_are_known_by_their_form(text, expected):
    assert redacted(text) == expected


def test_what_the_environment_keeps_secret_is_hidden_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "abc%2Fdef")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("MY_TOKEN_FILE", "/run/token")
    monkeypatch.setenv("ANY", "postgresql://me:q%2Fq%2Fqq@h/db")
    assert hidden("x abc%2Fdef false /run/token q/q/qq q%2Fq%2Fqq") == "x *** false /run/token *** ***"


def test_what_an_exception_says_of_a_store_is_without_its_password():
    error = RuntimeError(f"access denied for me with {IN_URI} at http://me:{IN_URI}@h:1/x")
    assert reason(error, f"http://me:{IN_URI}@h:1") == "access denied for me with *** at http://h:1/x"


@pytest.mark.parametrize(
    "override",
    ["tracking.uri=http://me:pa5sw0rd@h", "tracking.kind=http://me:pa5sw0rd@h", "train.epochs=x?token=pa5sw0rd"],
)
def test_a_wrong_request_is_answered_without_the_credentials_in_it(override):
    name, _, value = override.partition("=")
    raw = json.loads(json.dumps(raw_config()))
    group, key = name.split(".")
    raw[group][key] = value
    with pytest.raises(ConfigError) as error:
        parse(raw)
    assert "pa5sw0rd" not in str(error.value)


def test_a_long_value_is_not_cut_within_its_password():
    text = str(Problem("a.b", f"http://me:{'p' * 500}@h", "is wrong", "mend it"))
    assert text == "a.b: 'http://h' is wrong; mend it"


def test_the_launcher_prints_no_credentials_of_a_command_line_that_it_refuses():
    for override in ("tracking=http://me:pa5sw0rd@h", "tracking.experiment=[http://me:pa5sw0rd@h"):
        command = [sys.executable, "launch.py", override, "dry_run=true"]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("mvit: ")
        assert "pa5sw0rd" not in done.stdout + done.stderr
