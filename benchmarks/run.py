"""Find the benchmarks and run them: every module here with a function `run`."""

from __future__ import annotations

import importlib
import pkgutil

import benchmarks
from console import UserError, note

TOOLS = {"run", "measure", "deleting"}  # what benchmarks share


def names() -> list[str]:
    """The benchmarks there are."""
    modules = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return [name for name in modules if name not in TOOLS]


def run(only: str | None) -> None:
    """Run all of them, or one.

    Raises:
        UserError: there is no such benchmark.
    """
    if only and only not in names():
        raise UserError(f"unknown benchmark '{only}'", f"known benchmarks: {', '.join(names())}")
    for name in [only] if only else names():
        module = importlib.import_module(f"benchmarks.{name}")
        note(f"== {name}: {(module.__doc__ or '').splitlines()[0]}")
        module.run()
