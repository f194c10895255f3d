"""Types of arguments: text that a person typed, as a value or as the reason why it is refused."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # pyright: ignore[reportPrivateUsage]
"""Where a command adds its parser; argparse has no public name for what `add_subparsers` returns."""

MAX_SIDE = 8192
"""Pixels of a generated image; two at a time fit into ordinary memory."""


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a positive integer")
    return int(text)


def non_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be a non-negative integer")
    return int(text)


def port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} must be a port from 1 to 65535")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be between 0 and 1, such as 0.2")
    return value


def image_size(text: str) -> tuple[int, int]:
    """`500x375` as (500, 375)."""
    width, _, height = text.partition("x")
    try:
        size = positive(width), positive(height)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be a size such as 500x375") from error
    if max(size) > MAX_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} must be at most {MAX_SIDE} pixels on each side")
    return size
