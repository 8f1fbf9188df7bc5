"""What a cleanup looks like: the plan as a table, its progress, its report."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from console import note

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID

    from cleanup.execution import Report
    from cleanup.planning import Plan

NAMES = {
    "run": "runs",
    "experiment": "experiments",
    "logged_model": "logged models",
    "trace": "traces",
    "orphan_rows": "orphaned rows",
    "orphan_artifacts": "orphaned artifact folders",
}
SHOWN = 20


def human(size: float) -> str:
    """Return bytes as a short text: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def show_plan(plan: Plan) -> None:
    """Print the plan on standard error."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, highlight=False)
    table = Table(title="to be deleted for good", title_justify="left")
    table.add_column("what")
    table.add_column("how many", justify="right")
    for kind, count in plan.counts.items():
        table.add_row(NAMES[kind], f"{count:,}")
    if plan.counted:
        table.add_section()
        for name, count in sorted(plan.rows.items(), key=lambda item: -item[1]):
            if count:
                table.add_row(f"rows of {name}", f"{count:,}")
        for name, count in plan.orphan_rows.items():
            table.add_row(f"orphaned rows: {name}", f"{count:,}")
        table.add_section()
        if plan.orphan_folders:
            table.add_row(NAMES["orphan_artifacts"], f"{plan.orphan_folders:,}")
        table.add_row("objects in the store", f"{plan.objects:,}")
        table.add_row("bytes in the store", human(plan.bytes))
    console.print(table)
    for kind, count in plan.undated.items():
        note(f"{count} deleted {NAMES[kind]} have no deletion time; --include-undated takes them too")
    for reason, count in plan.left.items():
        note(f"{count} left alone: {reason} (such as {plan.examples[reason]})")
    for line in plan.notes:
        note(line)
    show_skipped(plan.skipped, 0)


def show_skipped(skipped: list[Any], unnamed: int) -> None:
    """Print what stays although it was selected."""
    for item in skipped[:SHOWN]:
        note(f"stays: {item.kind} {item.id}: {item.reason}")
    more = len(skipped) - SHOWN + unnamed
    if more > 0:
        note(f"and {more} more stay; --json names up to 1,000")


def show_report(report: Report) -> None:
    """Print what was done on standard error."""
    done = [f"{count:,} {NAMES[kind]}" for kind, count in report.deleted.items() if count]
    note(f"deleted {', '.join(done) or 'nothing'}")
    note(
        f"rows: {sum(report.rows.values()):,}, objects: {report.objects:,}, "
        f"artifacts: {human(report.bytes)}, in {report.seconds:.1f} s"
    )
    for line in report.notes:
        note(line)
    show_skipped(report.skipped, report.unnamed)
    if report.interrupted:
        note("interrupted: what was begun is done; run the same command again to finish")
    if report.left:
        note(f"left of what was selected: {report.left}")


class Bar:
    """A progress bar on a terminal, and a plain line every few seconds elsewhere."""

    def __init__(self, plan: Plan) -> None:
        self._total = sum(plan.counts.values())
        self._things = self._runs = self._rows = self._objects = self._bytes = 0
        self._started = self._told = time.monotonic()
        self._progress: Any = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task("", total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def advance(self, *, kind: str, things: int, rows: int, objects: int, size: int) -> None:
        """See `cleanup.execution.Progress`."""
        self._things += things if kind in {"run", "experiment", "logged_model", "trace"} else 0
        self._runs += things if kind == "run" else 0
        self._rows += rows
        self._objects += objects
        self._bytes += size
        now = time.monotonic()
        rate = self._rows / max(now - self._started, 0.001)
        line = (
            f"{self._runs:,} runs, {rate:,.0f} rows/s, {self._objects:,} objects, {human(self._bytes)} freed"
        )
        if self._progress:
            self._progress.update(self._task, completed=self._things, description=line)
        elif now - self._told >= 5:
            self._told = now
            share = self._things / max(self._total, 1)
            left = (now - self._started) * (1 / share - 1) if share else 0
            note(f"{self._things:,} of {self._total:,} done, {line}, about {left:.0f} s left")
