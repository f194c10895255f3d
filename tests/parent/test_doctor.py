"""What is said of a machine, and of what it lacks."""

import os
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mvit.cli.main import main
from mvit.models.kernels.build import Support
from mvit.parent import doctor, host
from mvit.parent.doctor import examine
from mvit.parent.host import this_host


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A function that returns what is said of something, as `verdict: found; remedy`."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def of(what, *, machine=None):
        found = {one.what: one for one in examine(machine or this_host(), runs=tmp_path / "runs")}
        return f"{found[what].verdict}: {found[what].found}; {found[what].remedy}"

    return of


@pytest.fixture
def server():
    """A function that starts a server which answers so, and returns its address."""
    servers = []

    def start(code):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(code if self.path == "/health" else 404)
                self.end_headers()

            def log_message(self, *_):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


def test_this_machine_can_run_the_default_job(capfd):
    assert main(["doctor"]) == 0
    out = capfd.readouterr().out
    assert "mvit: the default job can run here: make train\n" in out
    for what in ("Python", "mindspore", "memory", "run folders", "fused kernels", "msrun", "MLflow", "Slurm"):
        assert f"  {what} " in out


@pytest.mark.parametrize(
    ("name", "value", "what", "line"),
    [
        ("PYTHONS", ((4, 0), (4, 1)), "Python", "; use Python 3.10, 3.11 or 3.12"),
        ("ASKED", ("mindspore", "no-such-package"), "no-such-package", "missing: is not installed; run: make env"),
        ("MEMORY_BYTES", 2**60, "memory", "; the default job takes 1073741824.0 GiB: end other programs"),
        ("DISK_BYTES", 2**60, "run folders", "; make room"),
    ],
)
def test_what_the_default_job_cannot_run_without_ends_with_1(told, monkeypatch, capfd, name, value, what, line):
    monkeypatch.setattr(doctor, name, value)
    assert line in told(what)
    assert told(what).startswith("missing: ")
    assert main(["doctor"]) == 1
    assert capfd.readouterr().err == f"mvit: the default job cannot run here: see {what}\n"


def test_what_it_can_do_without_is_a_note(told, monkeypatch):
    machine = replace(this_host(), kernels=Support(None, "there is no g++"))
    assert told("fused kernels", machine=machine).startswith("note: none: there is no g++; install g++ 9 or later")
    monkeypatch.setattr(doctor, "_quota", lambda: 0.5)
    assert told("processors").endswith("a control group allows 0.5: use topology.threads=1, or threads wait")
    monkeypatch.setattr(doctor, "_pins", lambda _: [("numpy", "0.1")])
    assert told("numpy").endswith("; mvit is tested with 0.1; run: make env")


def test_a_folder_that_cannot_be_written_is_told(told, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    assert told("run folders") == f"missing: {tmp_path}/runs cannot be written; use runs_dir=..."


def test_a_tracking_server_is_asked(told, monkeypatch, server):
    for code, line in ((200, "ok: "), (401, "ok: "), (503, "note: ")):
        uri = server(code)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert told("MLflow").startswith(f"{line}{uri}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    assert told("MLflow").startswith("note: http://")
    assert "does not answer (" in told("MLflow")
    assert "secret" not in told("MLflow")


def test_a_database_is_not_made(told, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert told("MLflow") == f"ok: sqlite:///{tmp_path}/mlflow.db, which the first run makes; "
    assert list(tmp_path.iterdir()) == []


def test_cards_without_their_tools_are_told(told, monkeypatch, tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/davinci0").touch()
    monkeypatch.setattr(host, "DEVICES", tmp_path / "dev")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told("Ascend cards") == "ok: 1: davinci0; "
    assert told("Ascend driver") == "note: npu-smi does not answer; install the driver's tools"
    (tmp_path / "npu-smi").write_text("#!/bin/sh\necho '+---+'; echo '| npu-smi 24.1.rc2   Version: 24.1.rc2  |'\n")
    (tmp_path / "npu-smi").chmod(0o755)
    assert told("Ascend driver") == "ok: npu-smi 24.1.rc2   Version: 24.1.rc2; "
    assert told("Slurm").startswith("ok: none")


def answer(listening):
    with listening.accept()[0] as caller:
        caller.sendall(b"SSH-2.0-OpenSSH\r\n")


def test_what_is_no_tracking_server_does_not_answer(told, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=answer, args=(other,), daemon=True).start()
        for uri in ("http://localhost:abc", f"http://127.0.0.1:{other.getsockname()[1]}"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            assert "does not answer (" in told("MLflow")
