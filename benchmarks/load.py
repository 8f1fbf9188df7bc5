"""200 clients at once, each logging runs of 100 metrics: quickstart against a stock `mlflow server`."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg2
import requests

from benchmarks import measure
from develop.scratch.ports import free_port
from stacks.engines.readiness import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from develop.scratch.stack import StackUnderTest

CLIENTS = 200
RUNS = 2  # by each client
METRICS = 100
CLIENT_TIMEOUT = 120  # seconds; mlflow's own (MLFLOW_HTTP_REQUEST_TIMEOUT)
READY = "/api/2.0/mlflow/experiments/search?max_results=1"


@dataclass
class Outcome:
    """What became of the load.

    Attributes:
        runs: runs that were logged from beginning to end.
        requests: requests that were made.
        failed: those that failed, by status or by the error's name.
        seconds: from the first request to the last answer.
    """

    runs: int = 0
    requests: int = 0
    failed: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in self.failed.most_common())
        return (
            f"{self.failed.total()} of {self.requests} requests failed{f' ({reasons})' if reasons else ''}; "
            f"{self.runs} of {CLIENTS * RUNS} runs in {self.seconds:.1f} s, {self.runs / self.seconds:.1f} a second"
        )


def run() -> None:
    """Print failures and throughput of both; on one machine, with one PostgreSQL and as many workers."""
    workers = min(4, os.cpu_count() or 1)  # as `workers = 0` has it
    with measure.stack("quickstart", "host") as stack:
        stack.up()
        ours = load(stack.url)
        print(f"quickstart, {workers} workers: {ours}")
        with stock_server(stack, workers) as url:
            stock = load(url)
        print(f"stock mlflow server, {workers} workers: {stock}")
    measure.show(
        "time per run logged",
        ours.seconds / max(ours.runs, 1),
        stock.seconds / max(stock.runs, 1),
        "a stock mlflow server",
        unit="s",
        at_most=1.0,
    )
    if ours.failed:
        print("quickstart: MISSED, no request may fail")


def load(url: str) -> Outcome:
    """Let every client log its runs, all at once, and count."""
    answer = requests.post(
        f"{url}/api/2.0/mlflow/experiments/create", json={"name": f"load-{time.time_ns()}"}, timeout=60
    )
    answer.raise_for_status()
    experiment = answer.json()["experiment_id"]
    outcome, lock, gate = Outcome(), threading.Lock(), threading.Barrier(CLIENTS + 1)
    threads = [
        threading.Thread(target=_client, args=(url, experiment, outcome, lock, gate)) for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    outcome.seconds = time.perf_counter() - started
    return outcome


def _client(
    url: str, experiment: str, outcome: Outcome, lock: threading.Lock, gate: threading.Barrier
) -> None:
    metrics = [{"key": f"m{n}", "value": n / 7, "timestamp": 1, "step": 0} for n in range(METRICS)]
    with requests.Session() as session:

        def call(path: str, body: dict[str, object]) -> requests.Response | None:
            reason = None
            try:
                answer = session.post(f"{url}/api/2.0/mlflow/{path}", json=body, timeout=CLIENT_TIMEOUT)
                if answer.status_code != 200:
                    reason = f"HTTP {answer.status_code}"
            except requests.RequestException as error:
                reason = type(error).__name__
            with lock:
                outcome.requests += 1
                outcome.failed.update([reason] if reason else [])
            return None if reason else answer

        gate.wait()
        for _ in range(RUNS):
            created = call("runs/create", {"experiment_id": experiment, "start_time": 1})
            if created is None:
                continue
            run_id = created.json()["run"]["info"]["run_id"]
            logged = call("runs/log-batch", {"run_id": run_id, "metrics": metrics})
            ended = call("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 2})
            with lock:
                outcome.runs += logged is not None and ended is not None


@contextmanager
def stock_server(stack: StackUnderTest, workers: int) -> Iterator[str]:
    """`mlflow server` as it comes, without background jobs, on a database of its own in the stack's PostgreSQL."""
    address = ("127.0.0.1", int(str(stack.settings["postgres_port"])))
    password = (stack.state / "secrets" / "postgres-password").read_text()
    owner = psycopg2.connect(host=address[0], port=address[1], user="postgres", password=password)
    owner.autocommit = True
    owner.cursor().execute("CREATE DATABASE stock OWNER mlflow")
    owner.close()
    port = free_port()
    store = f"postgresql+psycopg2://mlflow@{address[0]}:{address[1]}/stock"
    words = ["server", "--port", str(port), "--workers", str(workers), "--backend-store-uri", store]
    settings = {
        "PGPASSFILE": str(stack.state / "secrets" / "pgpass"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = stack.state_dir / "stock.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            cwd=stack.state_dir,
            env={**os.environ, **settings},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 300
            while probe(f"http://127.0.0.1:{port}{READY}") is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(log.read_text())
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
