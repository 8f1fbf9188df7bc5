"""`python -m server` against real processes, sockets and a SQLite database."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest

from develop.scratch.ports import free_port
from tests.support.running import Running, clean_environment, request, request_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., Running]

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
CREATE = "/api/2.0/mlflow/experiments/create"


def test_one_process_serves_checks_hosts_and_origins_counts_and_ends_cleanly(
    start: Start, tmp_path: Path
) -> None:
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    (metrics / "counter_1.db").write_bytes(b"of an earlier run")
    server = start(
        "--expose-prometheus",
        str(metrics),
        env={
            "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:*,mlflow.example:*,mlflow.example",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "https://mlflow.example",
            "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
        },
    ).wait_ready()

    assert len(server.family()) == 1
    status, _, body = request(server.url + "/ready")
    assert (status, json.loads(body)) == (200, {"status": "ready", "version": "3.17.2"})

    for host, expected in (
        ("mlflow.example", 200),
        ("mlflow.example:80", 200),
        ("localhost", 403),
        ("evil.example", 403),
    ):
        assert request(server.url + SEARCH, headers={"Host": host})[0] == expected, host
    for origin, expected in (("https://mlflow.example", 200), ("https://evil.example", 403)):
        answer = request(
            server.url + CREATE,
            method="POST",
            headers={"Origin": origin, "Content-Type": "application/json"},
            body=json.dumps({"name": origin}).encode(),
        )
        assert answer[0] == expected, origin
    assert request(server.url + "/")[1]["x-frame-options"] == "DENY"

    assert b"mlflow_http_request_total" in request(server.url + "/metrics")[2]
    assert not (metrics / "counter_1.db").exists()

    family = server.family()
    server.process.terminate()
    assert server.exit_code() == 0, server.tail()
    server.ended(family)
    log = server.log.read_text()
    assert "experiments/search" in log
    assert 'GET /ready HTTP/1.1" 200' not in log


def test_readiness_follows_the_database(start: Start, tmp_path: Path) -> None:
    server = start("--static-prefix", "/ml").wait_ready("/ml/ready")

    def rename(table: str, to: str) -> None:
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            database.execute(f"ALTER TABLE {table} RENAME TO {to}")

    rename("experiments", "hidden")
    server.until("not ready without its tables", lambda: server.answers("/ml/ready", 503))
    assert request_json(server.url + "/ml/ready")[1]["status"].startswith("the tracking store fails")
    assert server.answers("/ml/health")
    rename("hidden", "experiments")
    server.wait_ready("/ml/ready")


def test_two_workers_make_one_schema_and_leave_no_orphan_when_any_process_is_killed(start: Start) -> None:
    server = start("--workers", "2").wait_ready()
    assert server.log.read_text().count("Creating initial MLflow database tables") == 1
    workers = [process for process in server.family()[1:] if "spawn_main" in " ".join(process.cmdline())]
    assert len(workers) == 2

    def served(times: int) -> None:
        message = "Application startup complete"
        server.until(f"{message}, {times} times", lambda: server.log.read_text().count(message) == times)

    served(2)
    workers[0].kill()
    server.until("the killed worker is replaced", lambda: "died" in server.log.read_text())
    served(3)
    server.wait_ready()

    family = server.family()
    os.kill(server.pid, signal.SIGKILL)
    server.ended(family)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_store_that_cannot_be_opened_is_a_failure(start: Start, workers: str) -> None:
    server = start("--workers", workers, store="nosuch://database")
    assert server.exit_code() == 3, server.tail()
    assert "cannot start" in server.tail()


def test_a_taken_port_is_told_at_once(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = start(port=other.getsockname()[1])
        assert server.exit_code() == 1
    assert f"error: cannot listen on 127.0.0.1:{server.port}: Address already in use" in server.tail()


def test_a_stalled_upload_and_a_silent_store_do_not_hold_up_the_end(start: Start) -> None:
    with socket.socket() as silent, socket.socket() as client:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        server = start(
            "--artifacts-destination",
            "s3://bucket",
            env={
                "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
            },
        ).wait_ready()
        artifact = "/api/2.0/mlflow-artifacts/artifacts/0/file"
        client.connect(("127.0.0.1", server.port))
        client.sendall(
            f"PUT {artifact} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf".encode()
        )
        reader = threading.Thread(target=lambda: server.answers(artifact), daemon=True)
        reader.start()
        silent.accept()  # the server asks the store, in a thread, and hears nothing
        family = server.family()
        server.process.terminate()
        assert server.exit_code() == 0, server.tail()
        server.ended(family)


def test_job_execution_starts_the_runner_which_ends_with_the_server(start: Start) -> None:
    server = start(env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"}).wait_ready()
    consumers = "huey.bin.huey_consumer"
    server.until(
        "the job runner has started its consumers",
        lambda: sum(consumers in " ".join(process.cmdline()) for process in server.family()) > 0,
    )
    family = server.family()
    os.kill(server.pid, signal.SIGKILL)
    server.ended(family)


def test_a_tethered_command_dies_with_its_parent_and_has_its_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    request = json.dumps({"env": {"KEY": str(tmp_path / "secret")}})
    show = "import os, time; print(os.getpid(), os.environ['KEY'], flush=True); time.sleep(600)"
    parent_code = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-m', 'process.tether', {request!r},"
        f" sys.executable, '-c', {show!r}]); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent_code], env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, secret = parent.stdout.readline().split()
        assert secret == "s3cret"
        child = psutil.Process(int(pid))
        parent.kill()
        child.wait(60)


def test_a_tether_without_its_secret_names_the_file(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    answer = subprocess.run(
        [sys.executable, "-m", "process.tether", json.dumps({"env": {"KEY": str(missing)}}), "true"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert (
        answer.stderr
        == f"error: cannot read the file for KEY: No such file or directory\n  file: {missing}\n"
    )


def test_wrong_usage_is_exit_code_2(start: Start) -> None:
    assert start("--static-prefix", "ml", port=free_port()).exit_code() == 2
