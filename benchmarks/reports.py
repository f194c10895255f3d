"""Report benchmark: what `ls`, `table` and the dashboard take over many runs.

    python benchmarks/reports.py [--runs 300] [--rounds 5] [--browser]

The runs are folders of the default job with other seeds and rates, with 20 metrics of 100 steps each, as a run writes
them. `ls` and `table` are whole processes. With --browser, which needs Chromium, the folders are sent to a SQLite store
first, which takes minutes, and a page with the view *Results* is opened as a person does it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.machine import CHECKOUT, cpu_model, positive
from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import free_port, this_host
from mvit.parent.request.compose import compose
from mvit.rundir.ending import record_end
from mvit.rundir.frozen import Run
from mvit.rundir.result import TrainResult, write_result

STEPS, METRICS = 100, 20
PAGE_S = 60.0
SERVER_S = 120.0
SENT_S = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=positive, default=300)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--browser", action="store_true")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="mvit-") as room:
        runs = [make_run(Path(room) / "runs", seed) for seed in range(1, arguments.runs + 1)]
        print(f"{cpu_model()}, {len(runs)} runs of {METRICS} metrics and {STEPS} steps, {arguments.rounds} rounds")
        print("| what | wall time, s: median (min-max) | CPU, s |\n|---|---|---|")
        for name in ("ls", "table"):
            print(timed([sys.executable, "-m", "mvit", name, str(runs[0].folder.path.parent)], name, arguments.rounds))
        if arguments.browser:
            print(opened(Path(room), rounds=arguments.rounds))


def make_run(root: Path, seed: int) -> Run:
    """A finished run that nobody computed."""
    planned = plan_launch(compose([f"seed={seed}", f"optimizer.lr={1e-4 * (1 + seed % 7)}"]), host=this_host())
    run = freeze(planned, root / f"20261129-{seed:06d}-{seed:04x}", made_of=({}, ""))
    names = ["train/loss", "val/acc1", *(f"train/metric_{number}" for number in range(METRICS - 2))]
    values = {
        name: [math.exp(-step / 30) + place + seed / 1e3 for step in range(STEPS)] for place, name in enumerate(names)
    }
    lines = (
        {"time": 1.7e9 + step, "step": step, "epoch": 1, "metrics": {name: values[name][step] for name in names}}
        for step in range(STEPS)
    )
    run.folder.journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    metrics = {"val/acc1": 98.0 + seed / 1e3, "best/val_acc1": 98.5, "perf/step_ms": 50.0, "perf/images_per_s": 640.0}
    write_result(run.folder, TrainResult(task="train", steps=STEPS, metrics=metrics, graphs={}, compiled=1))
    record_end(run.folder, "FINISHED", exit_code=0)
    return run


def timed(command: list[str], name: str, rounds: int) -> str:
    """A row: the command as a process of its own."""
    walls: list[float] = []
    cpus: list[float] = []
    for _ in range(rounds):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(time.perf_counter() - began)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return f"| `{name}` | {median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f}) | {median(cpus):.2f} |"


def opened(room: Path, *, rounds: int) -> str:
    """A row: from the address of the view to its rows."""
    from playwright.sync_api import sync_playwright

    store, port = f"sqlite:///{room}/mlflow.db", free_port()
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment["MLFLOW_TRACKING_URI"] = store
    subprocess.run(
        [sys.executable, "-m", "mvit", "sync", str(room / "runs"), "--uri", store],
        cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=True, timeout=SENT_S,
    )  # fmt: skip
    command = [sys.executable, "-m", "mvit", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        address = server.stdout.readline().split()[1]
        until_it_answers(address.partition("/#")[0])
        walls: list[float] = []
        with sync_playwright() as tool:
            flags = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
            for _ in range(rounds):
                page = browser.new_page(viewport={"width": 1600, "height": 1000})
                began = time.perf_counter()
                page.goto(address)
                page.locator("a[href*='/runs/']").first.wait_for(timeout=1e3 * PAGE_S)
                walls.append(time.perf_counter() - began)
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return f"| *Results* in Chromium | {median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f}) | |"


def until_it_answers(server: str) -> None:
    deadline = time.monotonic() + SERVER_S
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{server}/health", timeout=5):
            return
        time.sleep(0.5)
    sys.exit(f"{server} does not answer")


if __name__ == "__main__":
    main()
