"""``python -m cleanup``: plan, show, confirm, act, check again."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from console import UserError, confirm, emit_json, note, size, user_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from cleanup.filters import Filters
    from cleanup.planning import Plan
    from cleanup.report import Report


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which MLflow, shared with ``python -m cleanup.usage``."""
    parser.add_argument(
        "--backend-store-uri",
        default=os.environ.get("MLFLOW_BACKEND_STORE_URI"),
        help="the tracking server's database (default: MLFLOW_BACKEND_STORE_URI)",
    )
    parser.add_argument(
        "--artifacts-destination",
        default=os.environ.get("MLFLOW_ARTIFACTS_DESTINATION"),
        help="where its artifacts are (default: MLFLOW_ARTIFACTS_DESTINATION)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def require_target(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return database and destination.

    Raises:
        UserError: one of them is missing.
    """
    for value, flag in (
        (arguments.backend_store_uri, "--backend-store-uri"),
        (arguments.artifacts_destination, "--artifacts-destination"),
    ):
        if not value:
            raise UserError(
                f"which MLflow? {flag} is missing", f"give {flag}=URI as the tracking server has it"
            )
    return arguments.backend_store_uri, arguments.artifacts_destination


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``python -m cleanup``."""
    found = argparse.ArgumentParser(
        prog="python -m cleanup", description="Delete for good what users deleted, rows and artifacts."
    )
    add_target(found)
    found.add_argument(
        "--older-than", metavar="AGE", help="only what was deleted this long ago: 30m, 12h, 30d"
    )
    found.add_argument(
        "--only",
        metavar="KINDS",
        help="some of runs,experiments,models,traces,orphans (default: all but traces)",
    )
    found.add_argument("--run-ids", metavar="IDS", default="", help="exactly these runs")
    found.add_argument("--experiment-ids", metavar="IDS", default="", help="exactly these experiments")
    found.add_argument("--include-undated", action="store_true", help="also what has no deletion time")
    found.add_argument(
        "--force-registered", action="store_true", help="also what a registered model version needs"
    )
    found.add_argument(
        "--orphan-grace", metavar="AGE", default="1d", help="least age of orphaned artifacts (default: 1d)"
    )
    found.add_argument(
        "--foreign-orphans",
        action="store_true",
        help="delete orphaned artifacts even where none belong to the database",
    )
    found.add_argument(
        "--ignore-reference",
        metavar="TABLE.COLUMN",
        action="append",
        default=[],
        help="a column that may keep ids that are gone",
    )
    found.add_argument("--dry-run", action="store_true", help="show the plan and change nothing")
    found.add_argument("--yes", action="store_true", help="do not ask")
    found.add_argument(
        "--vacuum", action="store_true", help="give the space back to the system (locks tables meanwhile)"
    )
    found.add_argument(
        "--wait", metavar="SECONDS", type=float, default=0.0, help="wait for the maintenance lock"
    )
    return found


def filters_of(arguments: argparse.Namespace) -> Filters:
    """Return the filters of a parsed command line.

    Raises:
        UserError: see `Filters`.
    """
    from cleanup.filters import Filters

    return Filters(
        only=_list(arguments.only) or None if arguments.only else None,
        older_than=arguments.older_than,
        run_ids=_list(arguments.run_ids),
        experiment_ids=_list(arguments.experiment_ids),
        include_undated=arguments.include_undated,
        force_registered=arguments.force_registered,
        orphan_grace=arguments.orphan_grace,
        foreign_orphans=arguments.foreign_orphans,
        ignore_references=tuple(arguments.ignore_reference),
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


def run(arguments: argparse.Namespace) -> int:
    """Do the whole dialogue; return the exit code: 1 if something that was selected could not be deleted.

    Raises:
        UserError: whatever the user can mend.
    """
    filters = filters_of(arguments)
    uri, destination = require_target(arguments)

    from cleanup import display, vacuum
    from cleanup.execution import execute
    from cleanup.planning import plan as make_plan
    from database.connection import connect
    from database.lock import maintenance_lock

    engine = connect(uri)
    _check_schema(engine)
    # with --yes nobody looks, and counting reads as much as deleting does
    counted = arguments.dry_run or not arguments.yes
    plan = make_plan(engine, destination, filters, count=counted)
    if counted:
        display.show_plan(plan)
    if arguments.dry_run or (counted and plan.empty and not arguments.vacuum):
        if arguments.json:
            emit_json(as_json(plan, None, dry_run=arguments.dry_run))
        elif plan.empty:
            note("nothing to clean up")
        return 0
    if not confirm("delete all this for good?", yes=arguments.yes):
        if arguments.json:
            emit_json(as_json(plan, None, dry_run=True))
        return 0
    before = vacuum.size(engine)
    with maintenance_lock(engine, "cleanup", arguments.wait) as lock:
        with display.Bar(plan) as bar:
            report = execute(plan, progress=bar, check=lock.check)
        display.show_report(report)
        if arguments.vacuum and not report.interrupted:
            vacuum.vacuum(engine, sorted(plan.schema.tables))
            note(f"database: {size(before)} before, {size(vacuum.size(engine))} now")
        elif sum(report.rows.values()) > 100_000:
            note(
                f"the database keeps the space of deleted rows ({size(before)} in all) and fills it "
                "again; --vacuum gives it back to the system"
            )
    if arguments.json:
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
    arguments = parser().parse_args(argv)
    with user_errors(debug=arguments.debug):
        return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
