"""``python -m backups migrate|backup|restore|backups``: the verbs that take, put back and list backup sets."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arguments
from backups.sets import STACK
from console import UserError, confirm, emit_json, note, result, user_errors
from verbs import Backup, Backups, Migrate, Restore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from backups.migrate import Plan


def _for_stack() -> str:
    """The flag that names the stack that this is done for, after a task's name; "" for a database of its own."""
    name = os.environ.get(STACK)
    return f" --stack={name}" if name else ""


def _uri(request: Migrate | Backup | Restore) -> str:
    if not request.backend_store_uri:
        raise UserError("no database given", "give --backend-store-uri=URI, or set MLFLOW_BACKEND_STORE_URI")
    return request.backend_store_uri


# Each verb imports what it needs: `--help` needs no SQLAlchemy.


def _further(request: Migrate | Backup | Restore) -> dict[str, str]:
    """The server's other databases, by name."""
    from backups.databases import TRACKING, addresses

    uris = addresses(_uri(request), request.registry_store_uri, request.auth_database_uri)
    return {name: uri for name, uri in uris.items() if name != TRACKING}


def _migrate(request: Migrate) -> int:
    from backups import migrate
    from backups.databases import TRACKING, opened
    from database.address import redact

    if request.to.startswith("s3://"):  # what failed is put back from there at once
        raise UserError("migrate takes its backup to a folder", "give --to=FOLDER")
    to = Path(request.to).absolute()
    uris = {TRACKING: _uri(request), **_further(request)}
    with opened(uris) as engines:  # each database once
        uris = {name: uris[name] for name in engines}
    plans = {name: migrate.plan(uri) for name, uri in uris.items()}
    for name, plan in plans.items():
        _show(name, plan)
    if request.check:
        _tell_users(plans.values())
        if request.json:
            emit_json(_with_further({name: plan.as_json() for name, plan in plans.items()}))
        return 0 if all(plan.schema.state == "current" for plan in plans.values()) else 1
    for name, plan in plans.items():
        plan.refuse(uris[name])
    if behind := [plan for plan in plans.values() if plan.schema.state == "behind"]:
        _tell_users(behind)
        note(f"  its backup: {request.backup}" if request.backup else f"  a backup goes to {to} first")
        if not confirm(
            "Migrate what is behind?" if len(plans) > 1 else "Migrate this database?", yes=request.yes
        ):
            if request.json:
                emit_json(_with_further({name: plan.as_json() for name, plan in plans.items()}))
            return 1
    answers, said = dict[str, Any](), list[str]()
    for name, uri in uris.items():
        answer = migrate.migrate(
            uri,
            to,
            wait_seconds=request.wait,
            pg_command=request.pg_command or None,
            backup=Path(request.backup) if request.backup and name == TRACKING else None,
        )
        answers[name] = answer.as_json()
        said.append(f"{_title(name)} is {answer.after.state} at revision {answer.after.revision}")
        if answer.backup:
            where = _for_stack() if name == TRACKING else f" --backend-store-uri={redact(uri)}"
            said.append(
                f"  the database as it was before: invoke restore{where} --backup={answer.backup.path}"
            )
    _answer(request, _with_further(answers), "\n".join(said))
    return 0


def _tell_users(plans: Iterable[Plan]) -> None:
    for plan in plans:
        for user in plan.users:
            note(f"  in use by  {user}")


def _title(name: str) -> str:
    return "the schema" if name == "tracking" else f"the schema of the {name} database"


def _show(name: str, plan: Plan) -> None:
    schema = plan.schema
    note(f"{_title(name)} is {schema.state}: {schema.detail}")
    if schema.state == "behind":
        for step in schema.pending:
            note(f"  {step.revision}  {step.title}")


def _with_further(answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The JSON of several databases: that of the first, with those of the others below ``databases``."""
    first, *names = answers
    return {**answers[first], "databases": {name: answers[name] for name in names}}


def _backup(request: Backup) -> int:
    from backups.backup import back_up
    from backups.places import open_place

    with open_place(request.to) as place:
        backup = back_up(
            _uri(request),
            place,
            further=_further(request),
            destination=request.artifacts_destination or None,
            keys=[Path(name) for name in request.include],
            keep=request.keep,
            wait_seconds=request.wait,
            pg_command=request.pg_command or None,
            purpose=request.purpose,
        )
    again = f"invoke restore{_for_stack()} --backup={backup.where}"
    said = f"backed up to {backup.where}\n  {backup.line()}\n  to put it back: {again}"
    _answer(request, backup.as_json(), said)
    return 0


def _restore(request: Restore) -> int:
    from backups import restore
    from backups.places import beside, open_backup
    from backups.plan import plan as plan_of

    further = _further(request)
    uri, destination = _uri(request), request.artifacts_destination or None
    with open_backup(request.backup) as backup:
        plan = plan_of(uri, backup, further=further, leave_out=request.leave_out)
        if not request.shown:
            for line in plan.lines(destination):
                note(line)
        if request.plan:
            plan.refuse()
            emit_json(plan.as_json())
            return 0
        if not confirm("Replace what is there now?", yes=request.yes):
            return 1
        with beside(backup, wanted=not request.no_backup) as place:
            result = restore.restore(
                uri,
                backup,
                further=further,
                leave_out=request.leave_out,
                destination=destination,
                artifact_root=request.artifact_root or None,
                keys_to=Path(request.keys_to) if request.keys_to else None,
                to_head=request.migrate,
                save_to=place,
                shown=request.shown,
                wait_seconds=request.wait,
                pg_command=request.pg_command or None,
            )
    said = f"restored {result.rows} rows; the schema is {result.schema.state}: {result.schema.detail}"
    if result.artifacts and (moved := result.artifacts["moved"]):
        said += f"\n  {moved} locations in it now name the place where the artifacts are"
    if "behind" in {schema.state for schema in result.schemas.values()}:
        said += f"\n  before a server starts: invoke migrate{_for_stack()}"
    _answer(request, result.as_json(), said)
    return 0


def _backups(request: Backups) -> int:
    from backups import sets
    from backups.places import open_place

    remote = request.to.startswith("s3://")
    where = request.to if remote else str(Path(request.to).absolute())
    damaged: dict[str, str] = {}
    with open_place(request.to) as place:
        listed, rest = place.sets()
        for backup in listed if request.verify else []:
            try:
                sets.verify(place.open(backup))
            except UserError as error:
                damaged[backup.where] = error.message
    rows = [{**backup.as_json(), "damage": damaged.get(backup.where)} for backup in listed]
    lines = [backup.line() for backup in listed] or [f"no backups in {where}"]
    if request.json:
        emit_json({"folder": where, "sets": rows, "rest": rest})
    else:
        result("\n".join(lines))
    for text in [*damaged.values(), *rest]:
        note(f"  {text}")
    return 1 if damaged else 0


def _answer(request: Migrate | Backup | Restore, value: dict[str, Any], text: str) -> None:
    if request.json:
        emit_json(value)
    else:
        note(text)


def main(words: Sequence[str] | None = None) -> None:
    """Run one verb.

    Raises:
        SystemExit: always, with the exit code.
    """
    with user_errors():
        request: Migrate | Backup | Restore | Backups = arguments.choose(
            sys.argv[1:] if words is None else words, [Migrate, Backup, Restore, Backups]
        )
    with user_errors(debug=request.debug):
        match request:
            case Migrate():
                code = _migrate(request)
            case Backup():
                code = _backup(request)
            case Restore():
                code = _restore(request)
            case Backups():
                code = _backups(request)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
