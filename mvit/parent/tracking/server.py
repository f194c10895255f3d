"""MLflow's own server on a store."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from mvit.credentials import redacted
from mvit.parent.tracking.dashboard import keep_dashboard, path_of
from mvit.parent.tracking.store import (
    ANSWER_TIMEOUT_S,
    TrackingError,
    connect,
    database_of,
    ensure_experiment,
    prepare,
    within,
)
from mvit.places import PROJECT
from mvit.process import die_with_parent

FIRST_PORT = 5000
OPEN_WITHIN_S = 60.0
"""Longest wait for the server before a browser opens."""
POLL_S = 0.2
GRACE_S = 5.0


def serve(uri: str, *, host: str = "127.0.0.1", port: int | None = None, experiment: str | None = None) -> int:
    """Serve in the foreground until someone stops it; returns the exit code.

    Without a port, the first free one from `FIRST_PORT` on. With an experiment, its dashboard is brought up to date,
    and the address is that of its results, which a browser opens where there is a display. The store reaches the server
    by its environment: a command line, and a password in it, is visible to everybody.
    """
    if is_server(uri):
        print(f"mvit: the store is already a server: {_view(redacted(uri).rstrip('/'), uri, experiment)}")
        return 0
    chosen = port or _free_port(host)
    if problem := _problem(host, chosen):
        print(f"mvit: {problem}", file=sys.stderr)
        return 2
    address = f"http://{f'[{host}]' if ':' in host else host}:{chosen}"
    database = database_of(uri)
    try:
        if database and not database.exists():
            prepare(uri)  # a run that starts meanwhile would make the same tables
        address = _view(address, uri, experiment)
        with _signals() as received:
            print(f"mvit: {address} in about ten seconds, on {redacted(uri)}; press Ctrl-C to stop it", flush=True)
            if host not in ("127.0.0.1", "::1", "localhost"):
                print("mvit: anyone who can reach that address can read and change every run", flush=True)
            if experiment and _has_display():
                threading.Thread(target=_open_browser, args=(address, host, chosen), daemon=True).start()
            return _run(_command(host, chosen), _environment(uri, database), received)
    except TrackingError as error:
        print(f"mvit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def is_server(uri: str) -> bool:
    """Whether a store is MLflow's server itself."""
    return uri.startswith(("http://", "https://"))


def _view(address: str, uri: str, experiment: str | None) -> str:
    """The address of the experiment's results on a server; that of the server where the store does not say."""
    if experiment is None:
        return address

    def act() -> tuple[str, str | None]:
        client = connect(uri)
        experiment_id = ensure_experiment(client, uri, experiment)
        return experiment_id, keep_dashboard(client, experiment_id, uri=uri)

    try:
        experiment_id, problem = within(ANSWER_TIMEOUT_S, act, uri)
    except TrackingError as error:
        print(f"mvit: {error}", file=sys.stderr)
        return address
    if problem:
        print(f"mvit: {problem}", file=sys.stderr)
    return address + path_of(experiment_id, "results")


def _has_display() -> bool:
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _open_browser(address: str, host: str, port: int) -> None:
    """Open the address once somebody listens there."""
    deadline = time.monotonic() + OPEN_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, port), timeout=1.0):
            webbrowser.open(address)
            return
        time.sleep(POLL_S)


def _command(host: str, port: int) -> list[str]:
    return [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]


def _environment(uri: str, database: Path | None) -> dict[str, str]:
    root = database.parent if database else PROJECT
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for a feature that mvit does not use
        "MLFLOW_WORKERS": "1",
        "MLFLOW_UVICORN_OPTS": "--log-level warning",
        "MLFLOW_ARTIFACTS_DESTINATION": str(root / "mlartifacts"),
        "PYTHONWARNINGS": "ignore",  # of the server's own libraries
    }
    return {**defaults, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_REGISTRY_STORE_URI": uri}


@contextmanager
def _signals() -> Generator[list[int]]:
    """Meanwhile a signal that would end this process, a terminal that closes included, is only noted."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _frame: received.append(got))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN  # of nohup, which wants it to go on
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(command: list[str], environment: dict[str, str], received: list[int]) -> int:
    """Run a command and its children until it ends or a signal comes, which makes 128 + its number the exit code."""
    # In a session of its own, so that Ctrl-C reaches this process alone, which ends all of that one.
    server = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=die_with_parent)
    while server.poll() is None and not received:
        time.sleep(POLL_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_S)
    return 128 + received[0] if received else server.returncode


def _problem(host: str, port: int) -> str | None:
    """Why the server could not listen there, in one line."""
    try:
        _bind(host, port)
    except socket.gaierror:
        return f"--host {host} is an unknown host; use 127.0.0.1, or 0.0.0.0 for every address of this machine"
    except OverflowError:
        return f"--port {port} is not a port; use 1024 to 65535"
    except OSError as error:
        free = next((other for other in range(port + 1, min(port + 200, 65536)) if _is_free(host, other)), None)
        remedy = f"use --port {free}" if free else "use another --host"
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
        return f"port {port} of {host} {why}; {remedy}"
    return None


def _free_port(host: str) -> int:
    """The first free one; the first one of all where none is, which is then refused."""
    every = range(FIRST_PORT, FIRST_PORT + 200)
    return next((port for port in every if _is_free(host, port)), FIRST_PORT)


def _is_free(host: str, port: int) -> bool:
    try:
        _bind(host, port)
    except OSError:
        return False
    return True


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        probe.bind(address)
