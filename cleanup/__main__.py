"""``python -m cleanup``: plan, show, confirm, act, check again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import arguments
from console import UserError, confirm, emit_json, interactive, note, size, user_errors
from verbs import Cleanup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from cleanup.filters import Filters
    from cleanup.planning import Plan
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
        run_ids=request.run_ids or None,
        experiment_ids=request.experiment_ids or None,
        include_undated=request.include_undated,
        force_registered=request.force_registered,
        orphan_grace=request.orphan_grace,
        claim=request.claim,
        ignore_references=request.ignore_reference,
    )


def run(request: Cleanup) -> int:
    """Do the whole dialogue; return the exit code: 1 if something that was selected could not be deleted.

    Raises:
        UserError: whatever the user can mend.
    """
    filters = filters_of(request)
    uri, destination = require_target(request)

    from cleanup import answer, display, vacuum
    from cleanup.execution import execute
    from cleanup.planning import plan as make_plan
    from cleanup.selection import RefusedIdsError
    from database.connection import connect
    from database.dialect import maintenance_lock

    engine = connect(uri)
    _check_schema(engine)
    registry = connect(request.registry_store_uri) if request.registry_store_uri else None
    # with --yes nobody looks, and counting reads as much as deleting does
    counted = request.dry_run or not request.yes
    try:
        plan = make_plan(engine, destination, filters, registry=registry, count=counted)
    except RefusedIdsError as error:
        if request.json:
            emit_json(answer.of_refused(filters, error.refused))
        raise
    if counted:
        display.show_plan(plan)
    if request.dry_run or (counted and plan.empty and not (request.vacuum or request.claim)):
        if request.json:
            emit_json(answer.of_plan(plan, dry_run=request.dry_run))
        elif plan.empty:
            note("nothing to clean up")
        return 0
    if not (_may_claim(plan, yes=request.yes) and confirm("delete all this for good?", yes=request.yes)):
        if request.json:
            emit_json(answer.of_plan(plan, dry_run=True))
        return 0
    before = vacuum.size(engine) if request.vacuum else 0
    with maintenance_lock(engine, "cleanup", request.wait) as lock:
        with display.Bar(plan) as bar:
            report = execute(plan, progress=bar, check=lock.check)
        display.show_report(report)
        if request.vacuum and not report.interrupted:
            vacuum.vacuum(engine, sorted(plan.schema.tables))
            note(f"database: {size(before)} before, {size(vacuum.size(engine))} now")
        elif sum(report.rows.values()) > 100_000:
            note(
                f"the database keeps the space of deleted rows ({size(vacuum.size(engine))} in all) and fills it "
                "again; --vacuum gives it back to the system"
            )
    if request.json:
        emit_json(answer.of_report(plan, report))
    if report.interrupted:
        return 130
    return 1 if report.failures else 0


def _may_claim(plan: Plan, *, yes: bool) -> bool:
    """Ask before the mark of another database is replaced.

    Raises:
        UserError: nobody is there to ask: what runs every night must not put another server out.
    """
    from database.ownership import MARK

    owner = plan.owner
    if not plan.filters.claim or owner.state in {"ours", "unmarked"}:
        return True
    if yes or not interactive():
        raise UserError(
            f"the destination cannot be claimed like this: {owner}",
            "without --yes, at a terminal, it is asked about",
            f"or, when no other server uses {plan.store.uri} any more, remove its mark first: {MARK}",
        )
    return confirm(f"claim {plan.store.uri} all the same? {owner}", yes=False)


def _check_schema(engine: Engine) -> None:
    """Say when the schema is not one that this was tested on, and refuse what is no MLflow database."""
    from database.address import redact
    from database.revision import inspect_schema, refusal, released_version

    with engine.connect() as connection:
        if released_version(connection):
            return
        schema = inspect_schema(connection)
    if schema.state == "unknown":
        raise refusal(schema, redact(engine.url.render_as_string(hide_password=True)))
    if schema.state == "empty":
        raise UserError(
            "this is no MLflow database yet: MLflow has no tables in it",
            f"database: {engine.url.render_as_string(hide_password=True)}",
        )
    note(
        f"schema revision {schema.revision} is not one that cleanup was tested on ({schema.detail}); "
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
