"""The application that uvicorn serves: mlflow's, with ours in front. Each worker calls `create` once."""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import UserError
from database.sqlitefile import sync_commits
from process.loading import loading
from process.tether import die_with_parent
from server import durable, room, upstream
from server.asgi import BoundedExit, Readiness, ServerTransfers
from server.environment import PRESIGNED, START_LOCK, STORE_ROOM, WAIT_FOR_SCHEMA, truth
from server.full import tell_when_full
from server.schema import wait_for_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from process.asgi import App

STARTUP_FAILURE = 3  # uvicorn.config: tells uvicorn's parent process not to try again


def create() -> App:
    """Open the stores and make the application.

    Raises:
        SystemExit: 3, the application or its stores cannot be opened; the log says why.
    """
    if (parent := multiprocessing.parent_process()) and parent.pid:
        die_with_parent(parent.pid)
    try:
        with _mortal(), _first_alone():
            return _create()
    except Exception:
        logging.getLogger("uvicorn.error").exception("The tracking server cannot start")
        sys.exit(STARTUP_FAILURE)


def _create() -> App:
    with loading():  # here, for these read the environment and take seconds
        from mlflow.server.fastapi_app import app as mlflow_app
        from mlflow.server.handlers import _get_tracking_store, initialize_backend_stores
        from mlflow.version import VERSION

    backend = os.environ[upstream.BACKEND_STORE]
    if truth(os.environ.get(WAIT_FOR_SCHEMA, "")):
        wait_for_schema(backend)
    sync_commits()
    initialize_backend_stores(
        backend, os.environ[upstream.REGISTRY_STORE], os.environ[upstream.ARTIFACT_ROOT]
    )
    _check_trace_rollup(backend)

    prefix = os.environ.get(upstream.STATIC_PREFIX, "")
    store: Any = _get_tracking_store()
    tell_when_full(mlflow_app)
    app: App = mlflow_app
    if not truth(os.environ.get(PRESIGNED, "")):
        app = ServerTransfers(app, prefix=prefix)
    if config := os.environ.get("MLFLOW_GATEWAY_CONFIG"):
        app = _with_missing_keys(app, Path(config), prefix)
    destination = os.environ.get(upstream.ARTIFACT_DESTINATION, "")
    if folder := durable.local_folder(destination):
        app = durable.SyncedUploads(app, folder, prefix=prefix)

    def ready() -> list[str]:
        store.search_experiments(max_results=1)
        return room.check(store.engine, destination, os.environ.get(STORE_ROOM, ""))

    app = Readiness(app, ready, VERSION, prefix=prefix)
    return BoundedExit(app)


def _check_trace_rollup(backend: str) -> None:
    """Have mlflow check its settings for traces that are kept as daily sums; older versions have none."""
    try:
        from mlflow.tracing.trace_rollup_service import validate_sql_trace_rollup_startup
    except ModuleNotFoundError:
        return
    validate_sql_trace_rollup_startup(backend)


def _with_missing_keys(app: App, config: Path, prefix: str) -> App:
    """Have endpoints that `gateway.sync` left out for want of a provider key say so."""
    from gateway.asgi import MissingKeys
    from gateway.config import load

    folder = os.environ.get("_MLFLOW_STACKS_GATEWAY_SECRETS")

    def reason(name: str) -> str:
        try:
            return load(config, Path(folder) if folder else None).missing().get(name, "")
        except UserError as error:
            return error.message

    return MissingKeys(app, reason, prefix=prefix)


@contextmanager
def _mortal() -> Iterator[None]:
    """Let SIGTERM end the process at once; uvicorn's own handler would wait until the database answers."""
    if threading.current_thread() is not threading.main_thread() or multiprocessing.parent_process() is None:
        yield
        return
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _first_alone() -> Iterator[None]:
    """Let one worker start alone, and then all others at once.

    It makes the schema of a new database, and with few cores it serves seconds earlier than if all loaded MLflow
    at the same time.
    """
    if not (file := os.environ.get(START_LOCK)):
        yield
        return
    with Path(file).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield
