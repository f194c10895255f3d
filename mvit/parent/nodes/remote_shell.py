"""The other nodes of a run, started through ssh."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from mvit.places import PROJECT
from mvit.process import stop_with_parent
from mvit.rundir.paths import RunDir

OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=10")
"""Never asks for a password, and notices a machine that is gone."""
LEAVE_S = 5.0
"""From the end of the run to that of the shells: the parents there see it within a second or two."""


def ssh_command(folder: RunDir, host: str, *, rank: int) -> tuple[str, ...]:
    """What starts a node's parent on a host that has the project and the interpreter under the same paths."""
    command = shlex.join([sys.executable, "-m", "mvit", "run", str(folder.path), "--node-rank", str(rank)])
    return ("ssh", *OPTIONS, host, f"cd {shlex.quote(str(PROJECT))} && exec {command}")


class RemoteShells:
    """A parent per host, each in a remote shell of its own; those that still live when the context closes are ended."""

    def __init__(self, folder: RunDir, hosts: Sequence[str]) -> None:
        self._folder, self._hosts = folder, hosts
        self._shells: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> RemoteShells:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shell in self._shells.values():
            with suppress(subprocess.TimeoutExpired):
                shell.wait(LEAVE_S)
            if shell.poll() is None:
                shell.send_signal(signal.SIGTERM)
                shell.wait()

    def forget_ended(self) -> None:
        """Those that have ended are started anew, as before another attempt."""
        self._shells = {rank: shell for rank, shell in self._shells.items() if shell.poll() is None}

    def start(self, ranks: Sequence[int]) -> str | None:
        """Start the parents of these nodes that are not started; why one of them has ended, where one has."""
        for rank in ranks:
            shell = self._shells.get(rank)
            if shell is None:
                try:
                    self._shells[rank] = self._started(rank)
                except OSError as error:
                    return f"node {rank}: {error.filename} cannot be started ({error.strerror})"
            elif shell.poll() is not None:
                del self._shells[rank]
                return self._last_words(rank, shell.returncode)
        return None

    def _started(self, rank: int) -> subprocess.Popen[bytes]:
        argv = ssh_command(self._folder, self._hosts[rank], rank=rank)
        with self._log(rank).open("ab") as log:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=stop_with_parent,
            )  # fmt: skip

    def _last_words(self, rank: int, returncode: int) -> str:
        said = self._log(rank).read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
        return f"node {rank}: ssh {self._hosts[rank]} ended with exit code {returncode}: {said[-1]}"

    def _log(self, rank: int) -> Path:
        return self._folder.logs / f"node-{rank}.log"
