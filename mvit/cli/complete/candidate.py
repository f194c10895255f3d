"""A candidate: a word that may end a command line, and what it is."""

from __future__ import annotations

from typing import NamedTuple


class Candidate(NamedTuple):
    word: str
    about: str = ""

    def for_shell(self, shell: str) -> str:
        """As a shell takes it: bash without what it is, zsh as `word:about`, fish with a tab between them."""
        match shell:
            case "zsh":
                word = self.word.replace(":", "\\:")
                return f"{word}:{self.about}" if self.about else word
            case "fish":
                return f"{self.word}\t{self.about}"
            case _:
                return self.word
