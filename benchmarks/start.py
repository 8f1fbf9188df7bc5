"""`up --stack=quickstart` from nothing to healthy, against the slowest of its services started alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import measure
from stacks.engines.ports import listens
from stacks.services import probe
from stacks.settings import ROOT
from tests.stack import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def run() -> None:
    """Print how long each takes, and the ratio."""
    alone = {"postgres": _postgres, "object-store": _object_store, "mlflow": _mlflow}
    up, *singles = measure.alternately(_up, *alone.values(), rounds=3)
    for name, value in zip(alone, singles, strict=True):
        print(f"{name} alone: {value:.2f} s")
    slowest = max(zip(singles, alone, strict=True))
    measure.show("up to healthy", up, slowest[0], f"{slowest[1]} alone", unit="s", at_most=1.3)


def _up() -> float:
    with measure.stack("quickstart", "host") as stack:
        return measure.seconds(stack.up)


def _postgres() -> float:
    """A cluster is made, and takes connections."""
    with _folder() as folder:
        port = free_port()
        (folder / "password").write_text("not a secret")
        data = ["--data", str(folder / "data"), "--password-file", str(folder / "password")]
        return _started(
            ["-m", "database.postgres_server", *data, "--port", str(port)], lambda: listens(port), folder
        )


def _object_store() -> float:
    with _folder() as folder:
        port = free_port()
        (folder / "objects").mkdir()
        program = str(ROOT / "images" / "object-store" / "object_store.py")
        words = ["server", str(folder / "objects"), "--address", f"127.0.0.1:{port}"]
        keys = {"MINIO_ROOT_USER": "not-a-secret", "MINIO_ROOT_PASSWORD": "not-a-secret"}
        return _started([program, *words], lambda: listens(port), folder, keys)


def _mlflow() -> float:
    """With as many workers; on SQLite, where it makes the schema itself, so that it needs no other service."""
    with _folder() as folder:
        port = free_port()
        settings = {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        }
        words = ["--port", str(port), "--workers", str(min(4, os.cpu_count() or 1))]
        ready = f"http://127.0.0.1:{port}/ready"
        return _started(["-m", "server", *words], lambda: probe(ready) is not None, folder, settings)


def _started(
    words: list[str], ready: Callable[[], bool], folder: Path, settings: dict[str, str] | None = None
) -> float:
    """Seconds until a program that is started now is ready; it is ended again."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where rclone is
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **(settings or {})}
    with (folder / "log").open("w") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            while not ready():
                if process.poll() is not None or time.perf_counter() - started > 300:
                    raise RuntimeError((folder / "log").read_text())
                time.sleep(0.05)
            return time.perf_counter() - started
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder that PostgreSQL's user can enter too."""
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
