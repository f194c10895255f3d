"""MLflow's own server on a store."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from mvit.credentials import redacted
from mvit.parent.host import CHECKOUT
from mvit.parent.tracking.store import TrackingError, database_of, prepare
from mvit.process import die_with_parent

POLL_S = 0.2
GRACE_S = 5.0


def serve(uri: str, *, host: str = "127.0.0.1", port: int = 5000) -> int:
    """Serve in the foreground until someone stops it; returns the exit code.

    The store reaches the server by its environment: a command line, and a password in it, is visible to everybody.
    """
    if uri.startswith(("http://", "https://")):
        print(f"mvit: the store is already a server: {redacted(uri)}")
        return 0
    problem = _problem(host, port)
    if problem:
        print(f"mvit: {problem}", file=sys.stderr)
        return 2
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"mvit: {address} in about ten seconds, on {redacted(uri)}; press Ctrl-C to stop it", flush=True)
    if host not in ("127.0.0.1", "::1", "localhost"):
        print("mvit: anyone who can reach that address can read and change every run", flush=True)
    database = database_of(uri)
    try:
        if database and not database.exists():
            prepare(uri)  # a run that starts meanwhile would make the same tables
        return _run(_command(host, port), _environment(uri, database))
    except TrackingError as error:
        print(f"mvit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _command(host: str, port: int) -> list[str]:
    return [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]


def _environment(uri: str, database: Path | None) -> dict[str, str]:
    root = database.parent if database else CHECKOUT
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, for a feature that mvit does not use
        "MLFLOW_WORKERS": "1",
        "MLFLOW_UVICORN_OPTS": "--log-level warning",
        "MLFLOW_ARTIFACTS_DESTINATION": str(root / "mlartifacts"),
        "PYTHONWARNINGS": "ignore",  # of the server's own libraries
    }
    return {**defaults, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_REGISTRY_STORE_URI": uri}


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command and its children until it ends or a signal comes, which makes 128 + its number the exit code."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _frame: received.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        # In a session of its own, so that Ctrl-C reaches this process alone, which ends all of that one.
        server = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=die_with_parent)
        while server.poll() is None and not received:
            time.sleep(POLL_S)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with suppress(subprocess.TimeoutExpired):
                server.wait(GRACE_S)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
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
