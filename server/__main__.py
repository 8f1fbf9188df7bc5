"""``python -m server``: run the tracking server in this process, or in uvicorn's workers below it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from console import user_errors
from process.serve import check_port, serve
from server import environment
from server.environment import PREVIOUS_PASSPHRASE, START_LOCK, WAIT_FOR_SCHEMA, truth
from server.schema import wait_for_schema

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UserError: the port is taken.
        SystemExit: 0 after a signal, 2 on wrong usage, 3 when the server cannot start.
    """
    given = environment.arguments(argv, os.environ)
    check_port(given.host, given.port)
    environment.apply(given)
    if (previous := os.environ.get(PREVIOUS_PASSPHRASE)) and Path(previous).read_text():
        # In a process of its own: this one, which may only watch its workers, stays free of mlflow.
        if truth(os.environ.get(WAIT_FOR_SCHEMA, "")):
            wait_for_schema(given.backend_store_uri)
        subprocess.run(
            [sys.executable, "-m", "services.rekey", given.backend_store_uri, previous], check=True
        )
    if given.expose_prometheus:
        _empty_metrics(Path(given.expose_prometheus))
    with ExitStack() as stack:
        if truth(os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"]):
            from server.jobs import job_runner

            stack.enter_context(job_runner(given))
        if given.workers > 1:
            lock = stack.enter_context(tempfile.NamedTemporaryFile(prefix="mlflow-start-"))
            os.environ[START_LOCK] = lock.name
        serve("server.app:create", given.host, given.port, given.workers)


def _empty_metrics(folder: Path) -> None:
    """Drop what processes of an earlier run counted; theirs would be added to ours for ever."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()


if __name__ == "__main__":
    with user_errors():
        main()
