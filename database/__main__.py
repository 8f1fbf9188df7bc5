"""``python -m database prepare|inspect``: make a backend store's schema, and look at it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import arguments
from console import UserError, emit_json, note, user_errors
from verbs import Inspect, Prepare

if TYPE_CHECKING:
    from collections.abc import Sequence


def _uri(request: Prepare | Inspect) -> str:
    if not request.backend_store_uri:
        raise UserError("no database given", "give --backend-store-uri=URI, or set MLFLOW_BACKEND_STORE_URI")
    return request.backend_store_uri


# Each verb imports what it needs: `--help` needs no SQLAlchemy, and `prepare` must start quickly.


def _prepare(request: Prepare) -> None:
    from database.schema import prepare

    schema = prepare(_uri(request), wait_seconds=request.wait, server_wait=request.server_wait)
    if request.artifacts_destination:
        from database.ownership import settle

        settle(_uri(request), request.artifacts_destination, alone=request.destination_alone)
    if request.json:
        emit_json(schema.as_json())
    else:
        note(f"the schema is {schema.state}: {schema.detail}")


def _inspect(request: Inspect) -> None:
    from database.inspection import inspect

    emit_json(inspect(_uri(request)))


def main(words: Sequence[str] | None = None) -> None:
    """Run one verb."""
    with user_errors():
        request: Prepare | Inspect = arguments.choose(
            sys.argv[1:] if words is None else words, [Prepare, Inspect]
        )
    with user_errors(debug=request.debug):
        match request:
            case Prepare():
                _prepare(request)
            case Inspect():
                _inspect(request)


if __name__ == "__main__":
    main()
