"""What a cleanup looks like: the plan as a table, its progress, its report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from console import Progress, cell, note, screen
from console import size as readable

if TYPE_CHECKING:
    from types import TracebackType

    from cleanup.planning import Plan
    from cleanup.report import Report

NAMES = {
    "run": "runs",
    "experiment": "experiments",
    "logged_model": "logged models",
    "trace": "traces",
    "job": "jobs",
    "orphan_rows": "orphaned rows",
    "orphan_artifacts": "orphaned artifact folders",
}
SHOWN = 20


def show_plan(plan: Plan) -> None:
    """Print the plan on standard error."""
    from rich.table import Table

    table = Table(title="to be deleted for good", title_justify="left")
    table.add_column("what")
    table.add_column("how many", justify="right")
    for kind, count in plan.counts.items():
        table.add_row(NAMES[kind], f"{count:,}")
    if plan.counted:
        table.add_section()
        for name, count in sorted(plan.rows.items(), key=lambda item: -item[1]):
            if count:
                table.add_row(cell(f"rows of {name}"), f"{count:,}")
        for name, count in plan.orphan_rows.items():
            table.add_row(cell(f"orphaned rows: {name}"), f"{count:,}")
        table.add_section()
        if plan.orphan_folders:
            table.add_row(NAMES["orphan_artifacts"], f"{plan.orphan_folders:,}")
        table.add_row("objects in the store", f"{plan.objects:,}")
        table.add_row("bytes in the store", readable(plan.bytes))
    screen(error=True).print(table)
    for kind, count in plan.undated.items():
        note(f"{count} deleted {NAMES[kind]} have no deletion time; --include-undated takes them too")
    for reason, count in plan.left.items():
        note(f"{count} left alone: {reason} (such as {plan.examples[reason]})")
    if plan.filters.claim and not plan.owner.ours:
        note(f"{plan.store.uri} will be marked as this database's alone")
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
    deleted = [f"{count:,} {NAMES[kind]}" for kind, count in report.deleted.items() if count]
    note(f"deleted {', '.join(deleted) or 'nothing'}")
    note(
        f"rows: {sum(report.rows.values()):,}, objects: {report.objects:,}, "
        f"artifacts: {readable(report.bytes)}, in {report.seconds:.1f} s"
    )
    for line in report.notes:
        note(line)
    show_skipped(report.skipped, report.unnamed)
    if report.interrupted:
        note("interrupted: what was begun is done; run the same command again to finish")
    if report.left:
        note(f"left of what was selected: {report.left}")


class Bar:
    """What is deleted of a plan, while it is: a bar on a terminal, and a plain line every few seconds elsewhere."""

    def __init__(self, plan: Plan) -> None:
        self._step = Progress("deleting", sum(plan.counts.values()), "")
        self._runs = self._rows = self._objects = self._bytes = 0
        self._started = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step.clear()

    def advance(self, *, kind: str, things: int, rows: int, objects: int, size: int) -> None:
        """See `cleanup.execution.Progress`."""
        self._runs += things if kind == "run" else 0
        self._rows += rows
        self._objects += objects
        self._bytes += size
        rate = self._rows / max(time.monotonic() - self._started, 0.001)
        self._step.add(
            things if kind in {"run", "experiment", "logged_model", "trace"} else 0,
            f"{self._runs:,} runs, {rate:,.0f} rows/s, {self._objects:,} objects, {readable(self._bytes)} freed",
        )
