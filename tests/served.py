"""MLflow's server in a process of its own."""

import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

from mvit.places import PROJECT

SERVE = "import sys; from mvit.parent.tracking.server import serve; sys.exit(serve(sys.argv[1], port=int(sys.argv[2])))"


class Served:
    """The server of a store, which can be started again and again on one port."""

    def __init__(self, store: str, port: int) -> None:
        self.command = [sys.executable, "-c", SERVE, store, str(port)]
        self.address = f"127.0.0.1:{port}"
        self.uri = f"http://{self.address}"
        self.process: subprocess.Popen[str] | None = None
        self.said = ""

    def up(self) -> None:
        self.process = subprocess.Popen(
            self.command, cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 90
        while not self._answers():
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def down(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.said += self.process.communicate(timeout=30)[0]
            self.process = None

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=20) as answer:
            return answer.read() == b"OK"
        return False
