"""``python -m backups migrate|backup|restore|backups``: the verbs that take, put back and list backup sets."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from console import UserError, confirm, emit_json, note, user_errors

DEFAULT_KEEP = 7


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backups", description="Back up a backend store and put it back."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(dest="verb", required=True)

    answer = argparse.ArgumentParser(add_help=False)
    answer.add_argument("--json", action="store_true", help="print one JSON object on standard output")

    store = argparse.ArgumentParser(add_help=False)
    uri = os.environ.get("MLFLOW_BACKEND_STORE_URI")
    store.add_argument(
        "--backend-store-uri", default=uri, metavar="URI", help="default: $MLFLOW_BACKEND_STORE_URI"
    )
    store.add_argument(
        "--wait", type=float, metavar="SECONDS", help="how long to wait for the maintenance lock"
    )

    tools = argparse.ArgumentParser(add_help=False)
    tools.add_argument(
        "--pg-command",
        default=os.environ.get("MLFLOW_STACKS_PG_COMMAND"),
        metavar="COMMAND",
        help="run pg_dump, pg_restore and psql through this, such as 'docker compose exec -T postgres'",
    )

    place = argparse.ArgumentParser(add_help=False)
    folder = Path(os.environ.get("MLFLOW_STACKS_BACKUPS", "backups"))
    place.add_argument(
        "--to",
        default=str(folder),
        metavar="PLACE",
        help=f"of backup sets: a folder, or s3://BUCKET/PREFIX (default: {folder})",
    )

    files = argparse.ArgumentParser(add_help=False)
    files.add_argument(
        "--artifacts-destination",
        default=os.environ.get("MLFLOW_ARTIFACTS_DESTINATION"),
        metavar="URI",
        help="default: $MLFLOW_ARTIFACTS_DESTINATION; empty to leave artifacts out",
    )

    sure = argparse.ArgumentParser(add_help=False)
    sure.add_argument("--yes", action="store_true", help="do not ask")

    migrate = verbs.add_parser(
        "migrate",
        parents=[answer, store, tools, place, sure],
        help="bring the schema to the head",
    )
    migrate.add_argument(
        "--backup", type=Path, metavar="SET", help="of the database as it is now; no other is taken then"
    )
    migrate.add_argument("--check", action="store_true", help="only report; exit 0 when current, else 1")
    backup = verbs.add_parser(
        "backup", parents=[answer, store, tools, place, files], help="database, artifacts and keys as one set"
    )
    backup.add_argument(
        "--include",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a key file; repeatable",
    )
    backup.add_argument("--keep", type=int, default=DEFAULT_KEEP, metavar="N", help="sets to keep (7)")
    backup.add_argument("--purpose", default="backup", metavar="WORD", help="for the manifest (backup)")
    restore = verbs.add_parser(
        "restore", parents=[answer, store, tools, files, sure], help="verify a set, then put it back"
    )
    restore.add_argument(
        "--backup",
        required=True,
        metavar="SET",
        help="a folder or s3://BUCKET/PREFIX/NAME; 'latest' as its last part is the newest one there",
    )
    restore.add_argument(
        "--artifact-root",
        metavar="URI",
        help="how rows shall name artifacts that have moved: mlflow-artifacts:/ where a server serves them",
    )
    restore.add_argument("--keys-to", type=Path, metavar="FOLDER", help="where the set's key files go")
    restore.add_argument(
        "--migrate", action="store_true", help="then bring a schema that is behind to that of this MLflow"
    )
    backups = verbs.add_parser("backups", parents=[answer, place], help="the sets there are")
    backups.add_argument("--verify", action="store_true", help="read every byte of every set")
    return parser


def _uri(arguments: argparse.Namespace) -> str:
    if not arguments.backend_store_uri:
        raise UserError("no database given", "give --backend-store-uri=URI, or set MLFLOW_BACKEND_STORE_URI")
    return str(arguments.backend_store_uri)


# Each verb imports what it needs: `--help` needs no SQLAlchemy.


def _migrate(arguments: argparse.Namespace) -> int:
    from backups import migrate
    from database.connection import redact
    from database.revision import refusal

    uri = _uri(arguments)
    if arguments.to.startswith("s3://"):  # what failed is put back from there at once
        raise UserError("migrate takes its backup to a folder", "give --to=FOLDER")
    to = Path(arguments.to).absolute()
    plan = migrate.plan(uri)
    schema = plan.schema
    note(f"the schema is {schema.state}: {schema.detail}")
    if schema.state == "behind":
        for step in schema.pending:
            note(f"  {step.revision}  {step.title}")
    if arguments.check:
        for one in plan.users:
            note(f"  in use by  {one}")
        if arguments.json:
            emit_json(plan.as_json())
        return 0 if schema.state == "current" else 1
    if schema.state in {"ahead", "unknown"}:
        raise refusal(schema, redact(uri))
    if schema.state == "behind":
        for one in plan.users:
            note(f"  in use by  {one}")
        note(f"  its backup: {arguments.backup}" if arguments.backup else f"  a backup goes to {to} first")
        if not confirm("Migrate this database?", yes=arguments.yes):
            if arguments.json:
                emit_json(plan.as_json())
            return 1
    result = migrate.migrate(
        uri,
        to,
        wait_seconds=arguments.wait or 0,
        pg_command=arguments.pg_command,
        backup=arguments.backup,
    )
    done = f"the schema is {result.after.state} at revision {result.after.revision}"
    if result.backup:
        done += f"\n  the database as it was before: invoke restore --backup={result.backup.path}"
    _answer(arguments, result.as_json(), done)
    return 0


def _backup(arguments: argparse.Namespace) -> int:
    from backups.backup import back_up
    from backups.places import open_place

    if arguments.keep < 1:
        raise UserError(f"--keep={arguments.keep} would keep nothing", "give --keep=1 or more")
    with open_place(arguments.to) as place:
        one = back_up(
            _uri(arguments),
            place,
            destination=arguments.artifacts_destination or None,
            keys=arguments.include,
            keep=arguments.keep,
            wait_seconds=arguments.wait or 0,
            pg_command=arguments.pg_command,
            purpose=arguments.purpose,
        )
    done = f"backed up to {one.where}\n  {one.line()}\n  to put it back: invoke restore --backup={one.where}"
    _answer(arguments, one.as_json(), done)
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    from backups import restore
    from backups.places import open_backup

    uri, destination = _uri(arguments), arguments.artifacts_destination or None
    with open_backup(arguments.backup) as one:
        for line in restore.plan(uri, one).lines(destination):
            note(line)
        if not confirm("Replace what is there now?", yes=arguments.yes):
            return 1
        result = restore.restore(
            uri,
            one,
            destination=destination,
            artifact_root=arguments.artifact_root,
            keys_to=arguments.keys_to,
            to_head=arguments.migrate,
            wait_seconds=arguments.wait or 0,
            pg_command=arguments.pg_command,
        )
    done = f"restored {result.rows} rows; the schema is {result.schema.state}: {result.schema.detail}"
    if result.artifacts and (moved := result.artifacts["moved"]):
        done += f"\n  {moved} locations in it now name the place where the artifacts are"
    if result.schema.state == "behind":
        done += "\n  before a server starts: invoke migrate"
    _answer(arguments, result.as_json(), done)
    return 0


def _backups(arguments: argparse.Namespace) -> int:
    from backups import sets
    from backups.places import open_place

    remote = arguments.to.startswith("s3://")
    where = arguments.to if remote else str(Path(arguments.to).absolute())
    damaged: dict[str, str] = {}
    with open_place(arguments.to) as place:
        found, rest = place.sets()
        for one in found if arguments.verify else []:
            try:
                sets.verify(place.open(one))
            except UserError as error:
                damaged[one.where] = error.message
    rows = [{**one.as_json(), "damage": damaged.get(one.where)} for one in found]
    lines = [one.line() for one in found] or [f"no backups in {where}"]
    if arguments.json:
        emit_json({"folder": where, "sets": rows, "rest": rest})
    else:
        print("\n".join(lines))
    for text in [*damaged.values(), *rest]:
        note(f"  {text}")
    return 1 if damaged else 0


def _answer(arguments: argparse.Namespace, value: dict[str, Any], text: str) -> None:
    if arguments.json:
        emit_json(value)
    else:
        note(text)


_VERBS = {
    "migrate": _migrate,
    "backup": _backup,
    "restore": _restore,
    "backups": _backups,
}


def main() -> None:
    """Run one verb."""
    arguments = _parser().parse_args()
    with user_errors(debug=arguments.debug):
        code = _VERBS[arguments.verb](arguments)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
