"""What is printed where: hints and colours on a terminal alone."""

import os
import pty
import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT

PROGRAM = """
from rich.progress import Progress
from mvit import console
console.say("a line")
console.hint("what is next")
with Progress(console=console.console, disable=not console.console.is_terminal) as bar:
    bar.update(bar.add_task("images", total=2), completed=1)
"""
COLOUR = "\x1b[38;"


def printed(*, on_terminal: bool, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    command, env = [sys.executable, "-c", PROGRAM], {**kept, "TERM": "xterm-256color", **environment}
    if not on_terminal:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT, env=env).stdout
    master, slave = pty.openpty()
    subprocess.run(command, stdin=slave, stdout=slave, check=True, cwd=CHECKOUT, env=env)
    os.close(slave)
    with os.fdopen(master, "rb") as file:
        return os.read(file.fileno(), 65536).decode()


def test_a_terminal_has_colours_and_a_hint():
    screen = printed(on_terminal=True)
    assert "mvit: what is next" in screen
    assert COLOUR in screen


def test_no_color_is_honoured():
    screen = printed(on_terminal=True, NO_COLOR="1")
    assert "images" in screen
    assert COLOUR not in screen


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "forced"])
def test_what_is_piped_has_neither_a_bar_nor_a_colour_nor_a_hint(environment):
    assert printed(on_terminal=False, **environment).strip() == "a line"
