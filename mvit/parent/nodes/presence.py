"""The parent of a node, as the others see it: its file, kept fresh, and whether theirs still are."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType

from mvit.files import json_digest
from mvit.parent import provenance
from mvit.places import CHECKOUT
from mvit.rundir.job import machine_name
from mvit.rundir.nodes import NodeStatus, NodeVerdict, write_node
from mvit.rundir.paths import RunDir

BEAT_S = 1.0
LOST_S = 30.0
"""A parent whose count stands still for so long is given up: a shared file system may show it that late."""
NODE_PACKAGES = ("mindspore", "numpy")
"""Whose versions must be the same on all nodes."""


class Presence:
    """nodes/<rank>.json of this process, written once a second by a thread while the context is open."""

    def __init__(self, folder: RunDir, *, rank: int, token: str) -> None:
        self._folder, self._lock, self._closed = folder, threading.Lock(), threading.Event()
        self.status = NodeStatus(
            rank=rank,
            host=socket.gethostname(),
            machine=machine_name(),
            parent=secrets.token_hex(8),
            token=token,
            beats=0,
            code=code_of_this_node(),
            time=time.time(),
        )
        self._thread = threading.Thread(target=self._beat, daemon=True, name="node")

    def __enter__(self) -> Presence:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def join(self, token: str) -> None:
        """Take part in another execution."""
        self._change(token=token, verdict=None)

    def report(self, verdict: NodeVerdict) -> None:
        """Tell the others what became of an attempt, or of the run."""
        self._change(verdict=verdict)

    def _change(self, **fields: object) -> None:
        with self._lock:
            self.status = self.status.model_copy(update=fields)
        self._write()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            self._write()

    def _write(self) -> None:
        with self._lock, suppress(OSError):  # on a full disk the next beat tries again
            self.status = self.status.model_copy(update={"beats": self.status.beats + 1, "time": time.time()})
            write_node(self._folder, self.status)


class Seen:
    """Another node's parent, by whether its count goes up: since when it has not, by the clock of this machine."""

    def __init__(self, *, now: float) -> None:
        self._last: tuple[str, int] | None = None
        self._since = now
        self.has_changed = False

    def look(self, status: NodeStatus | None, *, now: float) -> None:
        """Take note of what its file says now."""
        sign = status and (status.parent, status.beats)
        if sign and sign != self._last:
            self.has_changed = self._last is not None
            self._last, self._since = sign, now

    def silent_s(self, now: float) -> float:
        """Seconds since its count went up."""
        return now - self._since


def code_of_this_node() -> dict[str, str | None]:
    """What must be the same on all nodes: version, commit, uncommitted changes, Python, and what computes."""
    content, patch = provenance.collect(CHECKOUT, argv=[], dataset_fingerprint="")
    versions = {package: content["versions"][package] for package in NODE_PACKAGES}
    python = ".".join(str(content["python"]).split(".")[:2])
    changes = json_digest(patch)[:10] if patch else "none"
    code = {"commit": content["commit"], "uncommitted changes": changes, "mvit": content["mvit"]}
    return {**code, "Python": python, **versions}
