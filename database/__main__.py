"""``python -m database prepare|migrate|backup|restore|backups``: the backend store's verbs."""

from __future__ import annotations

import argparse
import os

from console import UserError, emit_json, note, user_errors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m database", description=__doc__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(dest="verb", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    common.add_argument(
        "--wait", type=float, metavar="SECONDS", help="how long to wait for the maintenance lock"
    )
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument(
        "--backend-store-uri",
        default=os.environ.get("MLFLOW_BACKEND_STORE_URI"),
        metavar="URI",
        help="the database (default: $MLFLOW_BACKEND_STORE_URI)",
    )
    verbs.add_parser("prepare", parents=[common, store], help="create the schema in an empty database")
    return parser


def _uri(arguments: argparse.Namespace) -> str:
    if not arguments.backend_store_uri:
        raise UserError("no database given", "give --backend-store-uri=URI, or set MLFLOW_BACKEND_STORE_URI")
    return str(arguments.backend_store_uri)


def _prepare(arguments: argparse.Namespace) -> None:
    from database.schema import prepare  # noqa: PLC0415 - `--help` needs no SQLAlchemy

    schema = prepare(_uri(arguments), wait_seconds=300 if arguments.wait is None else arguments.wait)
    if arguments.json:
        emit_json(schema.as_json())
    else:
        note(f"the schema is {schema.state}: {schema.detail}")


def main() -> None:
    """Run one verb."""
    arguments = _parser().parse_args()
    with user_errors(debug=arguments.debug):
        {"prepare": _prepare}[arguments.verb](arguments)


if __name__ == "__main__":
    main()
