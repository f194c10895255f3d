"""What mkdocs does to a page: a link out of docs/ leads to the repository, or becomes text where none is known."""

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """The page as it is rendered; on disk its links are relative, so that they work where the files are read."""
    repository: str = config.extra.get("repository") or ""
    folder = posixpath.dirname(page.file.src_uri)

    def target(link: re.Match[str]) -> str:
        text, to = link.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, to))
        if path.startswith("docs/"):
            return link[0]
        return f"[{text}]({repository}/blob/main/{path})" if repository else text

    return LINK.sub(target, markdown)
