"""What the processes of a run write to their logs, as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mvit.rundir.paths import RunDir


class WorkerLogs:
    """Follows the logs of every attempt, from now on."""

    def __init__(self, folder: RunDir) -> None:
        self._folder = folder
        self._read = {path: path.stat().st_size for path in self._files()}
        """Bytes of each file that are known."""

    def _files(self) -> list[Path]:
        return sorted(self._folder.logs.glob("attempt-*/*.log"))

    def news(self) -> Iterator[tuple[str, str]]:
        """The lines that are whole since the last call, each with the name of its process: worker_0, scheduler ..."""
        for path in self._files():
            with suppress(OSError), path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole = file.read().rpartition(b"\n")[0]
                self._read[path] = file.seek(self._read.get(path, 0) + len(whole) + bool(whole))
                for line in whole.decode(errors="replace").splitlines():
                    yield path.stem, line
