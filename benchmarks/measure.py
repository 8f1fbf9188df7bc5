"""What benchmarks share: a stack of their own, repeated timing, and the one way a ratio is printed."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def stack(name: str, engine: str, **settings: object) -> Iterator[StackUnderTest]:
    """A stack on free ports in a temporary state directory, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-bench-") as folder:
        subject = StackUnderTest(name, engine, Path(folder), {**free_ports(), **settings})
        try:
            yield subject
        finally:
            if (subject.state / "stack.json").exists():
                subject.down("--volumes", "--yes")


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def alternately(*actions: Callable[[], float], rounds: int) -> list[float]:
    """The median of each measurement, taken in turn so that a busy machine is busy for all of them."""
    results = [[action() for action in actions] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*results, strict=True)]


def show(what: str, value: float, baseline: float, against: str, *, unit: str, at_most: float) -> None:
    """Print one ratio with both figures behind it, and the limit it is held to."""
    ratio = value / baseline
    verdict = "ok" if ratio <= at_most else "MISSED"
    print(
        f"{what}: {ratio:.2f} x {against} ({value:.2f} against {baseline:.2f} {unit}; at most {at_most}: {verdict})"
    )
