"""The JSON shape of a cleanup: what would be done, what was done, or why nothing was."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cleanup.filters import Filters
    from cleanup.planning import Plan
    from cleanup.report import Report, Skipped

KINDS = {
    "runs": "run",
    "experiments": "experiment",
    "logged_models": "logged_model",
    "traces": "trace",
    "jobs": "job",
    "orphan_rows": "orphan_rows",
    "orphan_artifacts": "orphan_artifacts",
}


def of_plan(plan: Plan, *, dry_run: bool) -> dict[str, Any]:
    """Return what would be done; `dry_run` is False if it was to be done and there is nothing to do."""
    counts = plan.counts | Counter(
        orphan_rows=sum(plan.orphan_rows.values()), orphan_artifacts=plan.orphan_folders
    )
    left = sum(plan.counts.values()) + len(plan.skipped)
    return (
        {"dry_run": dry_run}
        | _shape(plan.filters, counts, plan.skipped, rows=plan.rows, objects=plan.objects, size=plan.bytes)
        | {"undated": sum(plan.undated.values()), "notes": plan.notes, "left": left, "seconds": 0.0}
    )


def of_report(plan: Plan, report: Report) -> dict[str, Any]:
    """Return what was done."""
    return (
        {"dry_run": False}
        | _shape(
            plan.filters,
            report.deleted,
            report.skipped,
            rows=report.rows,
            objects=report.objects,
            size=report.bytes,
        )
        | {
            "undated": sum(plan.undated.values()),
            "notes": [*plan.notes, *report.notes],
            "left": report.left,
            "seconds": report.seconds,
        }
    )


def of_refused(filters: Filters, refused: Sequence[Skipped]) -> dict[str, Any]:
    """Return that nothing was done, for some of the ids that were asked for may not go."""
    return (
        {"dry_run": False}
        | _shape(filters, Counter(), refused)
        | {
            "undated": 0,
            "notes": [],
            "left": len(refused),
            "seconds": 0.0,
        }
    )


def _shape(
    filters: Filters,
    counts: Counter[str],
    skipped: Sequence[Skipped],
    *,
    rows: Counter[str] | None = None,
    objects: int = 0,
    size: int = 0,
) -> dict[str, Any]:
    return {
        "older_than": filters.older_than,
        "deleted": {name: counts[kind] for name, kind in KINDS.items()},
        "rows": {table: count for table, count in sorted((rows or {}).items()) if count},
        "artifacts": {"objects": objects, "bytes": size},
        "skipped": [{"kind": item.kind, "id": item.id, "reason": item.reason} for item in skipped],
    }
