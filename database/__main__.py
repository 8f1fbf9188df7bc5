"""``python -m database prepare|inspect``: make a backend store's schema, and look at it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from console import UserError, emit_json, note, user_errors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m database", description="Look after a backend store.")
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

    prepare = verbs.add_parser(
        "prepare", parents=[answer, store], help="create the schema in an empty database"
    )
    prepare.add_argument(
        "--server-wait",
        type=float,
        default=0,
        metavar="SECONDS",
        help="how long to wait for a server that does not let us in yet",
    )
    verbs.add_parser(
        "inspect",
        parents=[store],
        help="schema, revisions that this MLflow knows, rows of each table, as JSON",
    )
    return parser


def _uri(arguments: argparse.Namespace) -> str:
    if not arguments.backend_store_uri:
        raise UserError("no database given", "give --backend-store-uri=URI, or set MLFLOW_BACKEND_STORE_URI")
    return str(arguments.backend_store_uri)


# Each verb imports what it needs: `--help` needs no SQLAlchemy, and `prepare` must start quickly.


def _prepare(arguments: argparse.Namespace) -> int:
    from database.schema import prepare

    schema = prepare(
        _uri(arguments),
        wait_seconds=300 if arguments.wait is None else arguments.wait,
        server_wait=arguments.server_wait,
    )
    _answer(arguments, schema.as_json(), f"the schema is {schema.state}: {schema.detail}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from database.inspection import inspect

    emit_json(inspect(_uri(arguments)))
    return 0


def _answer(arguments: argparse.Namespace, value: dict[str, Any], text: str) -> None:
    if arguments.json:
        emit_json(value)
    else:
        note(text)


_VERBS = {
    "prepare": _prepare,
    "inspect": _inspect,
}


def main() -> None:
    """Run one verb."""
    arguments = _parser().parse_args()
    with user_errors(debug=arguments.debug):
        code = _VERBS[arguments.verb](arguments)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
