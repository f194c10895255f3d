"""MLflow's own server on a store."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from mvit.launch.tracking import database_of, shown


def serve(uri: str, *, host: str, port: int) -> int:
    """Serve in the foreground until Ctrl-C; returns the exit code."""
    if uri.startswith(("http://", "https://")):
        print(f"mvit: the store is a server already: {shown(uri)}")
        return 0
    if not _is_free(host, port):
        free = next((number for number in range(port + 1, port + 100) if _is_free(host, number)), None)
        hint = f"; try --port {free}" if free else ""
        print(f"mvit: port {port} of {host} is taken{hint}", file=sys.stderr)
        return 2
    database = database_of(uri)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", host]
    command += ["--port", str(port), "--workers", "1"]
    if database:
        command += ["--default-artifact-root", str(database.parent / "mlartifacts")]
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    print(f"mvit: http://{host}:{port} in about ten seconds, on {shown(uri)}; Ctrl-C ends it", flush=True)
    server = subprocess.Popen(command, env={**environment, **os.environ})
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.wait()
        return 130


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
