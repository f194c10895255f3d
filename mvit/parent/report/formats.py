"""Formats that a table can be printed in; loads nothing, for the command line."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["terminal", "markdown", "csv", "json", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)
