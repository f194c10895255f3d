"""The manual as tests read it: its pages, and what each shows a reader to type and to see."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tests.conftest import CHECKOUT

DOCS = sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs").rglob("*.md"))
PAGES = ["README.md", *DOCS]
Mark = Literal["", "planned", "not executed"]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r" +# (planned|not executed)$")


@dataclass(frozen=True)
class Example:
    """A command of a page, and the lines that the page shows below it."""

    page: str
    command: str
    mark: Mark
    output: tuple[str, ...]

    @property
    def is_refused(self) -> bool:
        """Whether the page shows it for the answer to a wrong request."""
        return bool(self.output) and all(re.match(r"mvit: [\w.]+: .+; ", line) for line in self.output)


def examples(page: str) -> list[Example]:
    """What the `console` blocks of a page show, in its order."""
    text = (CHECKOUT / page).read_text()
    return [example for block in _BLOCK.findall(text) for example in _of_block(page, block)]


def _of_block(page: str, block: str) -> Iterator[Example]:
    joined = re.sub(r" \\\n +", " ", block)
    for part in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
        first, *output = part.rstrip("\n").split("\n")
        mark = _MARK.search(first)
        kind: Mark = "" if mark is None else "planned" if mark[1] == "planned" else "not executed"
        yield Example(page, _MARK.sub("", first).split("  # ")[0].rstrip(), kind, tuple(output))
