"""``python -m cleanup``: plan, show, confirm, act, check again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import arguments
from console import UserError, confirm, emit_json, note, size, user_errors
from verbs import Cleanup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from cleanup.filters import Filters
    from cleanup.planning import Plan
    from cleanup.report import Report
    from verbs import Usage


def require_target(request: Cleanup | Usage) -> tuple[str, str]:
    """Return database and destination.

    Raises:
        UserError: one of them is missing.
    """
    for value, flag in (
        (request.backend_store_uri, "--backend-store-uri"),
        (request.artifacts_destination, "--artifacts-destination"),
    ):
        if not value:
            raise UserError(
                f"which MLflow? {flag} is missing", f"give {flag}=URI as the tracking server has it"
            )
    return request.backend_store_uri, request.artifacts_destination


def filters_of(request: Cleanup) -> Filters:
    """Return the filters of a request.

    Raises:
        UserError: see `Filters`.
    """
    from cleanup.filters import Filters

    return Filters(
        only=request.only or None,
        older_than=request.older_than or None,
        run_ids=request.run_ids,
        experiment_ids=request.experiment_ids,
        include_undated=request.include_undated,
        force_registered=request.force_registered,
        orphan_grace=request.orphan_grace,
        foreign_orphans=request.foreign_orphans,
        ignore_references=request.ignore_reference,
    )


def as_json(plan: Plan, report: Report | None, *, dry_run: bool) -> dict[str, Any]:
    """Return the shape of ``--json``: what was done, or with `dry_run` what would be."""
    done = report.deleted if report else plan.counts
    rows = report.rows if report else plan.rows
    skipped = report.skipped if report else plan.skipped
    return {
        "dry_run": dry_run,
        "older_than": plan.filters.older_than,
        "deleted": {
            "runs": done["run"],
            "experiments": done["experiment"],
            "logged_models": done["logged_model"],
            "traces": done["trace"],
            "orphan_rows": done["orphan_rows"] if report else sum(plan.orphan_rows.values()),
            "orphan_artifacts": done["orphan_artifacts"] if report else plan.orphan_folders,
        },
        "rows": {table: count for table, count in sorted(rows.items()) if count},
        "artifacts": {
            "objects": report.objects if report else plan.objects,
            "bytes": report.bytes if report else plan.bytes,
        },
        "skipped": [{"kind": item.kind, "id": item.id, "reason": item.reason} for item in skipped],
        "undated": sum(plan.undated.values()),
        "notes": [*plan.notes, *(report.notes if report else ())],
        "left": report.left if report else sum(plan.counts.values()) + len(plan.skipped),
        "seconds": report.seconds if report else 0.0,
    }


def run(request: Cleanup) -> int:
    """Do the whole dialogue; return the exit code: 1 if something that was selected could not be deleted.

    Raises:
        UserError: whatever the user can mend.
    """
    filters = filters_of(request)
    uri, destination = require_target(request)

    from cleanup import display, vacuum
    from cleanup.execution import execute
    from cleanup.planning import plan as make_plan
    from database.connection import connect
    from database.lock import maintenance_lock

    engine = connect(uri)
    _check_schema(engine)
    # with --yes nobody looks, and counting reads as much as deleting does
    counted = request.dry_run or not request.yes
    plan = make_plan(engine, destination, filters, count=counted)
    if counted:
        display.show_plan(plan)
    if request.dry_run or (counted and plan.empty and not request.vacuum):
        if request.json:
            emit_json(as_json(plan, None, dry_run=request.dry_run))
        elif plan.empty:
            note("nothing to clean up")
        return 0
    if not confirm("delete all this for good?", yes=request.yes):
        if request.json:
            emit_json(as_json(plan, None, dry_run=True))
        return 0
    before = vacuum.size(engine)
    with maintenance_lock(engine, "cleanup", request.wait) as lock:
        with display.Bar(plan) as bar:
            report = execute(plan, progress=bar, check=lock.check)
        display.show_report(report)
        if request.vacuum and not report.interrupted:
            vacuum.vacuum(engine, sorted(plan.schema.tables))
            note(f"database: {size(before)} before, {size(vacuum.size(engine))} now")
        elif sum(report.rows.values()) > 100_000:
            note(
                f"the database keeps the space of deleted rows ({size(before)} in all) and fills it "
                "again; --vacuum gives it back to the system"
            )
    if request.json:
        emit_json(as_json(plan, report, dry_run=False))
    if report.interrupted:
        return 130
    return 1 if report.failures else 0


def _check_schema(engine: Engine) -> None:
    """Say when the schema is not one that this was tested on, and refuse what is no MLflow database."""
    from database.connection import redact
    from database.revision import inspect_schema, refusal, released_version

    with engine.connect() as connection:
        if released_version(connection):
            return
        found = inspect_schema(connection)
    if found.state == "unknown":
        raise refusal(found, redact(engine.url.render_as_string(hide_password=True)))
    if found.state == "empty":
        raise UserError(
            "this is no MLflow database yet: MLflow has no tables in it",
            f"database: {engine.url.render_as_string(hide_password=True)}",
        )
    note(
        f"schema revision {found.revision} is not one that cleanup was tested on ({found.detail}); "
        "it goes by the database's own foreign keys"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    with user_errors():
        request = arguments.read(sys.argv[1:] if argv is None else argv, Cleanup)
    with user_errors(debug=request.debug):
        return run(request)


if __name__ == "__main__":
    sys.exit(main())
