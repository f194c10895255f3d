"""Kernels: the library that the workers of a run load, found or built by their launcher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mvit.errors import ConfigError, Problem
from mvit.models.kernels.build import Activations, Isa, KernelsUnavailable, library
from mvit.plan import LaunchPlan


def library_for(isa: Isa, activations: Activations, *, say: Callable[[str], None]) -> Path:
    """The library, built if need be; raises `KernelsUnavailable`."""
    return library(isa, activations, before_build=lambda: say("mvit: compiling the fused kernels for this CPU, once"))


def library_of(plan: LaunchPlan, *, say: Callable[[str], None]) -> Path | None:
    """The library of a frozen run, None for the plain form; raises `ConfigError` where it cannot be had."""
    if plan.kernels.isa is None:
        return None
    try:
        return library_for(plan.kernels.isa, plan.kernels.activations, say=say)
    except KernelsUnavailable as error:
        rule = f"is what the run was planned with, and is not available: {error}"
        raise ConfigError(Problem("kernels", plan.kernels.isa, rule, "mend that, or start a new run")) from error
