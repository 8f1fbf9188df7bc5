"""Waiting for the schema: a server would otherwise migrate an older database without a word."""

from __future__ import annotations

import time

from console import UserError

SECONDS = 300.0


def wait_for_schema(backend: str) -> None:
    """Wait until the step that prepares the schema has done so, or has found it as it must be.

    Args:
        backend: URI of the backend store.

    Raises:
        UserError: it is not done within five minutes.
    """
    from database.connection import connect
    from database.schema import read_schema

    deadline = time.monotonic() + SECONDS
    while True:
        try:
            engine = connect(backend)
            try:
                schema = read_schema(engine)
            finally:
                engine.dispose()
            if schema.state == "current":
                return
            problem = f"the schema is {schema.detail}"
        except UserError as error:
            problem = error.message
        if time.monotonic() > deadline:
            raise UserError(problem, "the step 'schema' prepares it: invoke logs --service=schema")
        time.sleep(0.2)
