"""Run an ASGI application under uvicorn: honest exit codes, and a log without the noise of health checks."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from console import UserError
from process.ports import bound, check_free

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from process.asgi import App


# Seconds that a worker may leave its parent without an answer. A long request is no reason to kill it, with the others
# that it serves: MLflow reads a JSON body of 50 MB for a quarter of a minute (3.17.2, one idle core), and longer on a
# busy machine, while the thread that answers the parent hardly gets a turn.
UNRESPONSIVE = 120


class NoProbes(logging.Filter):
    """Keep what health checks ask every few seconds out of the access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is worth a line: any failure, and any request but a probe."""
        path, status = record.args[2], record.args[4]  # type: ignore[index] # uvicorn.logging.AccessFormatter
        return status != 200 or not str(path).endswith(("/health", "/ready"))


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"no probes": {"()": "process.serve.NoProbes"}},
    "formatters": {
        "default": {
            "()": "uvicorn.logging.DefaultFormatter",
            "fmt": "%(asctime)s %(levelprefix)s %(message)s",
        },
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s %(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "default": {"class": "logging.StreamHandler", "formatter": "default", "stream": "ext://sys.stderr"},
        "access": {
            "class": "logging.StreamHandler",
            "formatter": "access",
            "stream": "ext://sys.stdout",
            "filters": ["no probes"],
        },
    },
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}


def check_port(host: str, port: int) -> None:
    """Find a taken port before seconds go into loading the application.

    Raises:
        UserError: nothing can listen there.
    """
    with _told(host, port):
        check_free(host, port)


@contextmanager
def _told(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror}", "choose another with --port or --host"
        ) from None


def serve(factory: str | Callable[[], App], host: str, port: int, workers: int = 1) -> None:
    """Run an application under uvicorn with an honest exit code.

    Args:
        factory: makes the application; with workers, its name as ``module:function``.
        host: address to listen on.
        port: port to listen on.
        workers: 1 serves in this process.

    Raises:
        UserError: nothing can listen there.
        SystemExit: 3, it cannot start.
    """
    # Until uvicorn has its own handler, and when it raises the signal again at its end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    config = uvicorn.Config(
        factory,
        factory=True,
        workers=workers,
        log_config=LOGGING,
        timeout_graceful_shutdown=5,
        timeout_worker_healthcheck=UNRESPONSIVE,
    )
    if workers == 1:
        config.load()  # before uvicorn takes the signals, so that one ends a start that waits for a database
    with _told(host, port):  # uvicorn's own reading of a name differs with the number of workers
        sockets = bound(host, port)
    logging.getLogger("uvicorn.error").info(
        "Uvicorn running on http://%s:%d (Press CTRL+C to quit)", f"[{host}]" if ":" in host else host, port
    )
    if workers > 1:
        parent = Multiprocess(config, sockets)
        parent.run()
        failed = any(process.exitcode == STARTUP_FAILURE for process in parent.processes)
    else:
        server = uvicorn.Server(config)
        server.run(sockets)
        failed = not server.started
    if failed:
        sys.exit(STARTUP_FAILURE)
