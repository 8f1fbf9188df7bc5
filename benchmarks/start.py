"""`up --stack=quickstart` from empty volumes to healthy, against the slowest of its services started alone.

Alone is a service's own program, or container, with nothing beside it and on nothing, until it is healthy by the same
sign: what it must do by itself is in its time. For the tracking server that is the schema, which it makes in SQLite
then, there being no other service to ask. `up` is the whole command, from the shell to the last service.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import images.build
from benchmarks import measure
from develop.scratch.ports import free_port
from process.ports import listens
from stacks.definition.settings import ROOT
from stacks.engines.compose import ComposeEngine
from stacks.engines.readiness import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = str(min(4, os.cpu_count() or 1))  # as many as quickstart has


def run() -> None:
    """Print how long each takes, and the ratio, on every engine there is."""
    _compare("host", {"postgres": _postgres, "object-store": _object_store, "mlflow": _mlflow})
    if ComposeEngine.why_not() is None:
        for name in images.build.names():
            images.build.ensure(name)
        _compare("compose", {name: partial(_container, name) for name in CONTAINERS})


def _compare(engine: str, alone: dict[str, Callable[[], float]]) -> None:
    up, *singles = measure.alternately(partial(_up, engine), *alone.values(), rounds=3)
    for name, value in zip(alone, singles, strict=True):
        print(f"{engine}: {name} alone: {value:.2f} s")
    slowest = max(zip(singles, alone, strict=True))
    measure.show(f"{engine}: up", up, slowest[0], f"{slowest[1]} alone", unit="s", at_most=1.3)


def _up(engine: str) -> float:
    with measure.stack("quickstart", engine) as stack:
        return measure.seconds(stack.up)


def _postgres() -> float:
    """A cluster is made, and takes connections."""
    with _folder() as folder:
        port = free_port()
        (folder / "password").write_text("not a secret")
        data = ["--data", str(folder / "data"), "--password-file", str(folder / "password")]
        return _started(
            ["-m", "services.postgres", *data, "--port", str(port)], lambda: listens(port), folder
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
    """The schema is made, in SQLite, and the first worker answers."""
    with _folder() as folder:
        port = free_port()
        settings = {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        }
        words = ["--port", str(port), "--workers", WORKERS]
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


# Variables, words, and what exits with 0 inside once it is ready.
CONTAINERS: dict[str, tuple[dict[str, str], list[str], list[str]]] = {
    "postgres": (
        {"POSTGRES_PASSWORD": "not-a-secret", "POSTGRES_DB": "mlflow"},
        [],
        ["pg_isready", "-h", "127.0.0.1", "-U", "postgres"],
    ),
    "object-store": (
        {"MINIO_ROOT_USER": "not-a-secret", "MINIO_ROOT_PASSWORD": "not-a-secret"},
        ["server", "/data"],
        ["/usr/bin/silo", "healthcheck", "ready"],
    ),
    "mlflow": (
        {
            "MLFLOW_BACKEND_STORE_URI": "sqlite:////var/lib/mlflow/mlflow.db",
            "MLFLOW_ARTIFACTS_DESTINATION": "/var/lib/mlflow/artifacts",
            "MLFLOW_WORKERS": WORKERS,
        },
        [],
        [],
    ),
}


def _container(name: str) -> float:
    """Seconds from `docker run` until the container's service is ready; it is removed again."""
    variables, words, check = CONTAINERS[name]
    port = free_port()
    flags = [word for item in variables.items() for word in ("--env", "=".join(item))]
    if name == "mlflow":  # asked at its published port, as `up` asks it
        flags += ["--publish", f"127.0.0.1:{port}:5000"]
    image = images.build.ensure(name)

    def ready(identity: str) -> bool:
        if not check:
            return probe(f"http://127.0.0.1:{port}/ready") is not None
        return _docker("exec", identity, *check).returncode == 0

    started = time.perf_counter()
    identity = _docker("run", "--detach", "--init", *flags, image, *words).stdout.strip()
    try:
        while not ready(identity):
            if time.perf_counter() - started > 300:
                raise RuntimeError(_docker("logs", identity).stderr)
            time.sleep(0.05)
        return time.perf_counter() - started
    finally:
        _docker("rm", "--force", "--volumes", identity)


def _docker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False)


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder that PostgreSQL's user can enter too."""
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
