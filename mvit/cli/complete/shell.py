"""The shells that complete: the script that each one reads, and where it finds it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Literal, get_args

from mvit.files import write_bytes

Shell = Literal["bash", "zsh", "fish"]
SHELLS: tuple[Shell, ...] = get_args(Shell)


def this_shell() -> Shell | None:
    """The login shell of the person; None for another one."""
    name = Path(os.environ.get("SHELL", "")).name
    return next((shell for shell in SHELLS if shell == name), None)


def script(shell: Shell) -> str:
    """What the shell reads; it calls this interpreter, wherever it is used."""
    text = Path(__file__).with_name(f"script.{shell}").read_text(encoding="utf-8")
    return text.replace("@PYTHON@", shlex.quote(sys.executable))


def install(shell: Shell) -> list[Path]:
    """Write the script where the shell finds it from its next start on; returns the files that changed."""
    if shell == "fish":
        file = _base("XDG_CONFIG_HOME", ".config") / "fish/conf.d/mvit.fish"
        return [file] if _write(file, script(shell)) else []
    file = _base("XDG_DATA_HOME", ".local/share") / f"mvit/completion.{shell}"
    changed = [file] if _write(file, script(shell)) else []
    start = Path.home() / ".bashrc" if shell == "bash" else Path(os.environ.get("ZDOTDIR") or Path.home()) / ".zshrc"
    line = f"[ ! -f {(quoted := shlex.quote(str(file)))} ] || . {quoted}  # completion of mvit"
    before = start.read_text(encoding="utf-8", errors="surrogateescape") if start.exists() else ""
    if line in before.splitlines():
        return changed
    with start.open("a", encoding="utf-8") as text:
        text.write(f"{'' if before.endswith(os.linesep) or not before else os.linesep}{line}\n")
    return [*changed, start]


def _base(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)


def _write(file: Path, text: str) -> bool:
    """Whether the file was another."""
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") == text:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, text.encode())
    return True
