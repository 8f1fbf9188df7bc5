"""`up --stack=local --engine=host` against `mlflow server`, its idle memory, and `invoke --list`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import measure
from develop.scratch.ports import free_port
from stacks.definition.settings import ROOT
from stacks.engines.readiness import probe

READY = "/api/2.0/mlflow/experiments/search?max_results=1"  # a real call, not only /health


def run() -> None:
    """Print the ratios."""
    up, bare, stock = measure.alternately(_up, _bare, _stock, rounds=3)
    measure.show(
        "up to ready", up, bare, "a bare mlflow server with the same settings", unit="s", at_most=1.2
    )
    measure.show("up to ready", up, stock, "a stock mlflow server", unit="s", at_most=0.5)
    ours, theirs = _memory_of_stack(), _memory_of_stock()
    measure.show("idle memory, supervisor included", ours, 450, "450 MB", unit="MB PSS", at_most=1.0)
    measure.show("idle memory", ours, theirs, "a stock mlflow server", unit="MB PSS", at_most=1.0)
    listing, importing = measure.alternately(
        lambda: measure.seconds(lambda: _quietly("-m", "invoke", "--list")),
        lambda: measure.seconds(lambda: _quietly("-c", "import invoke")),
        rounds=15,
    )
    measure.show("invoke --list", listing, importing, "python -c 'import invoke'", unit="s", at_most=1.5)


def _quietly(*words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=True)


def _up() -> float:
    with measure.stack("local", "host") as stack:
        return measure.seconds(lambda: stack.invoke("up", "--engine=host"))


def _bare() -> float:
    words = ["--workers", "1", "--artifacts-destination", "artifacts"]
    return _server(words, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})[0]


def _stock() -> float:
    return _server([], {})[0]


def _memory_of_stack() -> float:
    with measure.stack("local", "host") as stack:
        stack.up()
        time.sleep(5)
        return _pss(int((stack.state / "supervisord.pid").read_text()))


def _memory_of_stock() -> float:
    return _server([], {}, settle=5)[1]


def _server(words: list[str], environment: dict[str, str], *, settle: float = 0) -> tuple[float, float]:
    """Start `mlflow server` by hand on an empty SQLite; seconds until a real call answers, and MB of PSS."""
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-bench-") as folder:
        port = free_port()
        store = f"sqlite:///{folder}/mlflow.db"
        command = ["-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", store, *words]
        started = time.perf_counter()
        log = (Path(folder) / "log").open("w")
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **environment, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            while probe(f"http://127.0.0.1:{port}{READY}") is None:
                if process.poll() is not None or time.perf_counter() - started > 300:
                    raise RuntimeError((Path(folder) / "log").read_text())
                time.sleep(0.05)
            elapsed = time.perf_counter() - started
            time.sleep(settle)
            return elapsed, _pss(process.pid) if settle else 0.0
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            log.close()


def _pss(pid: int) -> float:
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family) / 1e6
