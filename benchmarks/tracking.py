"""Tracking benchmark: step time of a run whose tracking server is up, down or slow, and of an unmirrored run.

    python benchmarks/tracking.py [--rounds 5] [--steps 200] [--compute]

A stand-in for a worker, in its own process, takes 50 ms per step and appends to a journal; its launcher mirrors the
journal as a real one does. It waits, as for a device, or computes hashes with --compute, which needs an idle machine.
Servers: MLflow's own on SQLite; a port without a listener; one that sleeps 20 s before each response. They take turns
in each round, in a different order each time, so that other work on the machine affects all of them. A ratio is the
median over the rounds of the ratio to `none` in the same round.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean, median
from typing import Literal

from mvit.config import MlflowTracking
from mvit.parent.tracking.live import Tracker
from mvit.parent.tracking.server import serve
from mvit.rundir import paths
from mvit.rundir.journal import Journal

STEP_S = 0.05
SLOW_S = 20.0
LIMIT = 1.03
WARMUP = 5
Server = Literal["none", "up", "down", "slow"]
SERVERS: tuple[Server, ...] = ("none", "up", "down", "slow")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--compute", action="store_true")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--hashes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.part:
        case ["worker", _]:
            return worker(arguments.folder, steps=arguments.steps, hashes=arguments.hashes)
        case ["launcher", uri]:
            return launcher(arguments.folder, uri, steps=arguments.steps, hashes=arguments.hashes)
        case ["server", database]:
            return serve(f"sqlite:///{database}", port=arguments.hashes)
        case _:
            return compare(
                rounds=arguments.rounds, steps=arguments.steps, hashes=calibrated() if arguments.compute else 0
            )


def compare(*, rounds: int, steps: int, hashes: int) -> int:
    """Print the table; return 1 if a median exceeds that of `none` by more than the limit."""
    cpu: dict[Server, list[float]] = {server: [] for server in SERVERS}
    times: dict[Server, list[list[float]]] = {server: [] for server in SERVERS}
    with tempfile.TemporaryDirectory(prefix="mvit-") as room, real(Path(room)) as up, slow() as late:
        uris: dict[Server, str] = {"none": "", "up": up, "down": f"http://127.0.0.1:{free_port()}", "slow": late}
        for turn in range(rounds):
            for server in SERVERS[turn % len(SERVERS) :] + SERVERS[: turn % len(SERVERS)]:
                folder = Path(room) / f"{turn}-{server}"
                command = part("launcher", uris[server], folder=folder, steps=steps, hashes=hashes)
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                times[server].append(json.loads(done.stdout.splitlines()[0]))
                cpu[server].append(float(done.stdout.splitlines()[1]))
                failure = done.stdout.splitlines()[2]
                assert (failure == "None") == (server in ("none", "up")), failure
    print(f"{rounds} rounds of {steps} steps, {os.cpu_count()} processors, Python {platform.python_version()}")
    print("| server | ms/step, median | ms/step, mean | ratio of medians | of means | launcher, CPU s |")
    print("|---|---|---|---|---|---|")
    worst = 0.0
    for server in SERVERS:
        ratios = [
            median([of(mine) / of(none) for mine, none in zip(times[server], times["none"], strict=True)])
            for of in (median, mean)
        ]
        values = [1e3 * median([of(run) for run in times[server]]) for of in (median, mean)]
        figures = f"{values[0]:.2f} | {values[1]:.2f} | {ratios[0]:.3f} | {ratios[1]:.3f} | {median(cpu[server]):.1f}"
        print(f"| {server} | {figures} |")
        worst = max(worst, ratios[0])
    for server in ("down", "slow"):
        pairs = zip(times[server], times["up"], strict=True)
        print(f"{server} / up: {median([median(mine) / median(other) for mine, other in pairs]):.3f}")
    print(f"{'within' if worst <= LIMIT else 'NOT within'} 3 %: {worst:.3f}")
    return int(worst > LIMIT)


def worker(folder: Path, *, steps: int, hashes: int) -> int:
    journal = Journal(paths.RunDir(folder).journal)
    seconds: list[float] = []
    for step in range(1, steps + 1):
        began = time.perf_counter()
        if hashes:
            compute(hashes)
        else:
            time.sleep(STEP_S)
        metrics = {"train/loss": 1.0 / step, "train/lr": 1e-3, "perf/step_ms": 50.0, "perf/images_per_s": 640.0}
        journal.metrics(metrics, step=step, epoch=0)
        seconds.append(time.perf_counter() - began)
    journal.close()
    print(json.dumps(seconds[WARMUP:]))
    return 0


def launcher(path: Path, uri: str, *, steps: int, hashes: int) -> int:
    folder = paths.create_run_dir(path)
    tracking = MlflowTracking(kind="mlflow", uri=None, experiment="benchmark")
    tracker = Tracker(folder, tracking=tracking, uri=uri, params={}, tags={}) if uri else None
    if tracker:
        tracker.start()
    # Including the loading of the client: a real run starts beside it too.
    command = part("worker", "-", folder=path, steps=steps, hashes=hashes)
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout, end="")
    print(time.process_time())
    print(tracker.finish("FINISHED", artifacts=[], tags={}, timeout_s=15) if tracker else None)
    return 0


def part(name: str, what: str, *, folder: Path, steps: int, hashes: int) -> list[str]:
    numbers = ["--steps", str(steps), "--hashes", str(hashes)]
    return [sys.executable, str(Path(__file__)), "--part", name, what, "--folder", str(folder), *numbers]


def compute(hashes: int) -> None:
    block = bytes(1 << 16)
    for _ in range(hashes):
        hashlib.sha256(block).digest()


def calibrated() -> int:
    """Number of hashes that take as long as one step on an idle machine."""
    best = min(_seconds(100) for _ in range(20))
    return round(100 * STEP_S / best)


def _seconds(hashes: int) -> float:
    began = time.perf_counter()
    compute(hashes)
    return time.perf_counter() - began


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def real(room: Path) -> Iterator[str]:
    port = free_port()
    command = part("server", str(room / "mlflow.db"), folder=room, steps=0, hashes=port)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not responds(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < deadline, "MLflow's server does not respond"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def responds(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=20) as response:
        return response.status == 200
    return False


class Late(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(SLOW_S)
        with suppress(OSError):  # the client gave up
            self.send_error(503)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def slow() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Late)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
