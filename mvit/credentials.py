"""Credentials: recognising them in text, and removing them."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

# A password may contain `/` and `@`, a user name neither: everything up to the last @ of the word is removed.
_USERINFO = re.compile(r"(?<=://)(?:[^\s/:@]*:\S*|[^\s/:@]*)@")
_SETTING = re.compile(r"(?i)([\w-]*(?:password|passwd|token|secret|credentials?|key|key_id)=)[^&\s]+")
_HEADER = re.compile(r"(?i)\b(authorization\W+\w+)\s+\S+")
_NAME = re.compile(r"(?i)password|passwd|secret|token|credential|(access|api|private)_?key")
_PASSWORD = re.compile(r"://(?:[^\s/:@]*:(\S*)|([^\s/:@]*))@")
_SHORTEST = 6
"""In characters; a shorter value in the environment is more likely a switch than a secret."""


def redacted(text: str) -> str:
    """The text without `user:password@` in URLs, `password=...` and the like; the same on every host."""
    return _HEADER.sub(r"\1 ***", _SETTING.sub(r"\1***", _USERINFO.sub("", text)))


def hidden(text: str, *uris: str) -> str:
    """`redacted`, and also without the passwords in the environment and the URIs, wherever they occur."""
    return without_environment(redacted(text), *uris)


def without_environment(text: str, *uris: str) -> str:
    """The text without the passwords, tokens and keys in the environment and the URIs; otherwise unchanged."""
    for secret in sorted(_of_environment() | _of_uris(*uris), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _of_environment() -> set[str]:
    values = {value for name, value in os.environ.items() if _NAME.search(name) and not value.startswith(("/", "."))}
    return {value for value in values if len(value) >= _SHORTEST} | _of_uris(*os.environ.values())


def _of_uris(*uris: str) -> set[str]:
    passwords = {part for uri in uris for match in _PASSWORD.findall(uri) for part in match}
    return {form for part in passwords for form in (part, unquote(part)) if len(part) >= _SHORTEST}
