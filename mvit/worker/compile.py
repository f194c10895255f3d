"""Compilation of the planned graphs, each before the first step that runs it, or their loading from the cache."""

import gc
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import mindspore as ms
import numpy as np

from mvit.compile_cache.key import STARTED_FROM, graph_key, sources_digest
from mvit.compile_cache.store import STORE_VARIABLE, Entry, Store
from mvit.config import Mode
from mvit.files import lock
from mvit.models.kernels.build import KERNELS_VARIABLE
from mvit.plan import GraphPlan
from mvit.rundir.frozen import Run
from mvit.worker.compile_phases import recorded_phases
from mvit.worker.graph_check import Runnable, check_graphs
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.session import Session

WAIT_S = 120.0
"""Longest wait for another process that compiles the same graphs."""


class Compilable(Protocol):
    """What runs planned graphs."""

    def planned(self, graph: GraphPlan) -> Runnable:
        """The cell of a graph, in its mode, and inputs of the shapes that it runs with."""
        ...


PHASES = ("type_inference", "optimize", "task_emit")
"""The phases that take nearly all of a compilation: reading the network, rewriting its graph, making the kernels."""


@dataclass(frozen=True)
class Compilation:
    """How long one graph took."""

    mode: Mode
    seconds: float
    phases: dict[str, float]
    """Seconds by MindSpore's names, as far as it told them."""


@dataclass(frozen=True)
class Compiled:
    """How the planned graphs came to be."""

    graphs: dict[str, Compilation]
    """By the name of the graph."""
    cached: bool
    """Whether they were loaded from the cache."""

    @property
    def seconds(self) -> dict[str, float]:
        return {name: graph.seconds for name, graph in self.graphs.items()}

    def metrics(self) -> dict[str, float]:
        """Seconds for the training graphs and the evaluation's, and 1 where they came from the cache.

        Phases are those of the training graphs, or of the evaluation's where nothing is trained.
        """
        training = [graph for graph in self.graphs.values() if graph.mode == "train"]
        inference = [graph for graph in self.graphs.values() if graph.mode == "inference"]
        metrics = {"perf/compile_cached": float(self.cached)}
        if inference:
            metrics["perf/compile_eval_s"] = sum(graph.seconds for graph in inference)
        if training:
            metrics["perf/compile_s"] = sum(graph.seconds for graph in training)
        for phase in PHASES:
            seconds = [graph.phases[phase] for graph in training or inference if phase in graph.phases]
            if seconds:
                metrics[f"perf/compile_{phase}_s"] = sum(seconds)
        return metrics


@dataclass(frozen=True)
class Graphs:
    """The graphs of a plan, and what runs them."""

    planned: Sequence[GraphPlan]
    evaluate: Compilable
    train: Compilable | None = None

    def runnable(self, graph: GraphPlan) -> Runnable:
        owner = self.evaluate if graph.mode == "inference" else self.train
        assert owner is not None, f"the plan has a graph that this task does not run: {graph.name}"
        return owner.planned(graph)

    def compile(self, report: Callable[[str, Compilation], None]) -> dict[str, Compilation]:
        """Compile each graph in turn, without running it; each is reported at once."""
        compiled: dict[str, Compilation] = {}
        gc.freeze()  # MindSpore collects garbage at each graph, and what is loaded by now is none
        for graph in self.planned:
            cell, inputs = self.runnable(graph)
            began = time.perf_counter()
            with recorded_phases() as phases:
                cell.compile(*inputs)
            compiled[graph.name] = Compilation(graph.mode, time.perf_counter() - began, phases)
            report(graph.name, compiled[graph.name])
        return compiled

    def forget(self) -> None:
        """Have every graph compiled anew."""
        for graph in self.planned:
            self.runnable(graph)[0].compile_cache.clear()

    def check(self) -> str:
        """What the graphs compute: see `check_graphs`."""
        return check_graphs(map(self.runnable, self.planned))


def compile_graphs(session: Session, *, evaluate: Compilable, train: Compilable | None = None) -> Compiled:
    """Compile the graphs of the plan, or load them; every worker must call this.

    Loaded graphs are run once and have to compute to the bit what they did when they were compiled. What is wrong with
    the cache costs time and a line, never the run.
    """
    graphs = Graphs(session.run.plan.graphs, evaluate=evaluate, train=train)
    root = os.environ.get(STORE_VARIABLE)
    if root is None:
        return Compiled(graphs.compile(_reporter(session)), cached=False)
    with ExitStack() as stack:
        attempt = _attempt(stack, Store(Path(root)), session)
        compiled = _compile(graphs, attempt, session)
        # All workers do the same from here on, whatever each of them found: a graph may wait for the others.
        session.heartbeat.mark()
        check = graphs.check()
        wrong = compiled.cached and attempt is not None and attempt.entry is not None and check != attempt.entry.check
        if session.workers.sum(np.array([wrong], np.float32))[0] > 0:
            _complain(session, "held graphs that compute something else: compiled anew")
            if wrong and attempt is not None:
                attempt.store.discard(attempt.key)
            graphs.forget()
            return Compiled(graphs.compile(_reporter(session)), cached=False)
        if attempt is not None and not compiled.cached:
            attempt.keep(session, seconds=compiled.seconds, check=check)
    return compiled


@dataclass(frozen=True)
class _Attempt:
    """The use of the cache by one worker."""

    store: Store
    key: str
    work: Path
    """Where MindSpore reads and writes."""
    entry: Entry | None
    """What was found under the key; its files are in the workspace."""

    def keep(self, session: Session, *, seconds: dict[str, float], check: str) -> None:
        """Make an entry of what was compiled, if MindSpore wrote all of it."""
        num_written = sum(1 for _ in self.work.rglob("*.mindir"))
        try:
            if num_written == len(seconds) and sources_digest() == STARTED_FROM:
                self.store.put(self.key, self.work, title=_title(session.run), seconds=seconds, check=check)
        except OSError as error:
            _complain(session, f"keeps nothing: {error.strerror or error}")


def _attempt(stack: ExitStack, store: Store, session: Session) -> _Attempt | None:
    """Look the graphs up; waits while another process compiles the same ones. The stack ends the attempt."""
    try:
        if sources_digest() != STARTED_FROM:  # what is loaded is neither the one nor the other
            _complain(session, "is not used: sources were edited since the start of this process")
            return None
        key = _key(session)
        work = stack.enter_context(store.workspace())
        if session.run.plan.world_size == 1:  # workers that wait for those of another run might wait for each other
            _hold(stack, store.lock_file(key), session.heartbeat)
        return _Attempt(store, key, work, store.fetch(key, work))
    except OSError as error:
        _complain(session, f"cannot be used: {error.strerror or error}")
        return None


def _hold(stack: ExitStack, path: Path, heartbeat: Heartbeat) -> None:
    """Hold a lock until the stack ends, or go on without it after a while."""
    deadline = time.monotonic() + WAIT_S
    while True:
        with ExitStack() as attempt:
            if attempt.enter_context(lock(path, wait=False, create=True)) or time.monotonic() > deadline:
                stack.push(attempt.pop_all())
                return
        heartbeat.mark()
        time.sleep(0.1)


def _compile(graphs: Graphs, attempt: _Attempt | None, session: Session) -> Compiled:
    """Compile with MindSpore's cache in the workspace; MindSpore may still refuse what it finds there."""
    if attempt is None:
        return Compiled(graphs.compile(_reporter(session)), cached=False)
    before = _files(attempt.work)
    try:
        with _mindspore_cache(attempt.work):
            made = graphs.compile(_reporter(session, loads=attempt.entry is not None))
    except RuntimeError:
        if attempt.entry is None:
            raise
        _complain(session, "held graphs that cannot be loaded: compiled anew")
        attempt.store.discard(attempt.key)
        shutil.rmtree(attempt.work, ignore_errors=True)
        graphs.forget()
        return Compiled(graphs.compile(_reporter(session)), cached=False)
    return Compiled(made, cached=attempt.entry is not None and _files(attempt.work) == before)


@contextmanager
def _mindspore_cache(folder: Path) -> Generator[None]:
    """Let MindSpore load graphs from a folder, and write to it those that are not there.

    It numbers the graphs of a process in their order, and takes the first folder for all of them.
    """
    os.environ["MS_COMPILER_CACHE_PATH"] = str(folder)
    os.environ["MS_COMPILER_CACHE_ENABLE"] = "1"
    try:
        yield
    finally:
        os.environ["MS_COMPILER_CACHE_ENABLE"] = "0"


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file below a folder."""
    facts = {str(path): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (fact.st_ino, fact.st_mtime_ns) for path, fact in facts.items()}


def _key(session: Session) -> str:
    library = os.environ.get(KERNELS_VARIABLE)
    return graph_key(
        session.run.config,
        session.run.plan,
        library=Path(library) if library else None,
        environment=os.environ,
        cores=len(os.sched_getaffinity(0)),
        rank=session.rank,
    )


def _title(run: Run) -> str:
    """What the graphs are of, for a person."""
    shapes = ", ".join(f"{g.name} {'x'.join(map(str, g.images[:3]))}" for g in run.plan.graphs if g.images)
    return f"{run.config.model.name} {run.plan.kernels.isa or 'plain'}: {shapes}"


def _reporter(session: Session, *, loads: bool = False) -> Callable[[str, Compilation], None]:
    def report(name: str, graph: Compilation) -> None:
        phases = {phase: round(seconds, 3) for phase, seconds in graph.phases.items() if seconds >= 0.01}
        session.journal.event("compiled", graph=name, seconds=graph.seconds, cached=loads, phases=phases)

    return report


def _complain(session: Session, what: str) -> None:
    session.journal.event("compile_cache_failed", reason=what)


def blank_batch(images: tuple[int, int, int, int]) -> tuple[ms.Tensor, ms.Tensor]:
    """Images (B, S, S, 3) uint8 and labels (B,) int32, all zero."""
    return ms.Tensor(np.zeros(images, np.uint8)), ms.Tensor(np.zeros(images[0], np.int32))
