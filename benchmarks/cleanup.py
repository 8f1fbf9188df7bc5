"""How fast and how large cleanup is, as ratios against ``mlflow gc`` on a copy of the same database.

``python -m benchmarks.cleanup [--scale=1.0] [--only=NAME,...]``. Baselines run in the same run: ``mlflow gc`` of
the installed MLflow, and plain set-based SQL (one DELETE a table for everything) as the limit.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from console import note
from tests.host.cleanup.world import s3_server
from tests.host.database import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
LIVE = 200
OBJECTS = 5

RUNS = """
INSERT INTO runs (user_id, run_uuid, name, source_type, status, start_time, lifecycle_stage,
                  artifact_uri, experiment_id, deleted_time)
SELECT 'u', md5('run' || n), 'r' || n, 'LOCAL', 'FINISHED', 1,
       CASE WHEN n <= {deleted} THEN 'deleted' ELSE 'active' END,
       '{root}/1/' || md5('run' || n) || '/artifacts', 1, CASE WHEN n <= {deleted} THEN 1 END
FROM generate_series(1, {deleted} + {live}) n;
INSERT INTO params (key, value, run_uuid)
SELECT 'p' || k, 'value ' || k, run_uuid FROM runs, generate_series(1, 20) k;
INSERT INTO tags (key, value, run_uuid) SELECT 't' || k, 'tag ' || k, run_uuid FROM runs, generate_series(1, 10) k;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT 'm' || k, k, 1, 20, false, run_uuid FROM runs, generate_series(1, 50) k;
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
SELECT 'm' || k, s * 1.5, s, run_uuid, s, false FROM runs, generate_series(1, 50) k, generate_series(1, {steps}) s;
"""
EXPERIMENT = """
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time,
                         last_update_time, workspace)
VALUES (1, 'one', '{root}/1', 'active', 1, 1, 'default'), (2, 'gone', '{root}/2', 'deleted', 1, 1, 'default');
"""
TRACES = """
INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status)
SELECT 'tr-' || md5('t' || n), 2, n, 5, 'OK' FROM generate_series(1, {traces}) n;
INSERT INTO trace_tags (key, value, request_id) SELECT 'mlflow.artifactLocation',
       '{root}/2/traces/' || request_id || '/artifacts', request_id FROM trace_info;
INSERT INTO trace_tags (key, value, request_id) SELECT 'k' || k, 'v', request_id
FROM trace_info, generate_series(1, 4) k;
INSERT INTO trace_request_metadata (key, value, request_id) SELECT 'k' || k, 'v', request_id
FROM trace_info, generate_series(1, 5) k;
INSERT INTO spans (trace_id, experiment_id, span_id, name, type, status, start_time_unix_nano,
                   end_time_unix_nano, content)
SELECT request_id, 2, 's' || s, 'span', 'LLM', 'OK', 1, 2, repeat('x', 500) FROM trace_info, generate_series(1, 10) s;
"""
MODEL_METRICS = """
INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms,
                           last_updated_timestamp_ms, status, lifecycle_stage)
VALUES ('m-' || md5('x'), 1, 'm', '{root}/1/models/m-' || md5('x') || '/artifacts', 1, 1, 1, 'active');
INSERT INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step, metric_value,
                                  experiment_id, run_id)
SELECT 'm-' || md5('x'), 'm' || n, n, n, 0.5, 1, md5('run' || ({deleted} + 1 + n % {live}))
FROM generate_series(1, {rows}) n;
"""
PLAIN = {
    "runs": [
        *(
            f"DELETE FROM {table} WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted')"
            for table in ("metrics", "latest_metrics", "params", "tags")
        ),
        "DELETE FROM runs WHERE lifecycle_stage = 'deleted'",
    ],
    "indexed": [
        "CREATE INDEX plain ON logged_model_metrics (run_id)",
        *(
            f"DELETE FROM {table} WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted')"
            for table in ("metrics", "latest_metrics", "params", "tags")
        ),
        "DELETE FROM runs WHERE lifecycle_stage = 'deleted'",
    ],
    "traces": [
        "DELETE FROM spans WHERE experiment_id = 2",
        "DELETE FROM trace_tags WHERE request_id IN (SELECT request_id FROM trace_info WHERE experiment_id = 2)",
        "DELETE FROM trace_request_metadata WHERE request_id IN "
        "(SELECT request_id FROM trace_info WHERE experiment_id = 2)",
        "DELETE FROM trace_info WHERE experiment_id = 2",
        "DELETE FROM experiments WHERE experiment_id = 2",
    ],
}


@dataclass(frozen=True)
class Measured:
    """Wall seconds, the peak memory of the process in bytes, and the runs or traces that are left."""

    seconds: float
    peak: int
    left: int


@dataclass
class Bench:
    """One PostgreSQL, one S3 server, and an empty database of the newest schema to start from."""

    server: servers.Postgres
    folder: Path
    scale: float

    def database(self, name: str, *scripts: str) -> None:
        """Make a database from the empty one and fill it."""
        self.server.sql(f'DROP DATABASE IF EXISTS "{name}"')
        self.server.sql(f'CREATE DATABASE "{name}" TEMPLATE empty')
        for script in scripts:
            self.server.sql("", name, stdin=script.encode())
        self.server.sql("VACUUM ANALYZE", name)

    def copy(self, source: str, target: str) -> str:
        """Copy a database; return the copy's URI."""
        self.server.sql(f'DROP DATABASE IF EXISTS "{target}"')
        self.server.sql(f'CREATE DATABASE "{target}" TEMPLATE "{source}"')
        self.server.sql("CHECKPOINT")
        return self.server.uri(target)

    def timed(self, argv: list[str], env: dict[str, str], database: str) -> Measured:
        """Run a program to its end."""
        log = self.folder / "log"
        started = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(argv, cwd=ROOT, env=os.environ | env, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, log.read_text()[-3000:]
        left = self.server.sql("SELECT count(*) FROM runs WHERE lifecycle_stage = 'deleted'", database)
        traces = self.server.sql("SELECT count(*) FROM trace_info", database)
        return Measured(seconds, usage.ru_maxrss * 1024, int(left) + int(traces))

    def ours(self, uri: str, destination: str, env: dict[str, str], *flags: str) -> Measured:
        """Run cleanup."""
        argv = [sys.executable, "-m", "cleanup", "--yes", "--json", "--backend-store-uri", uri]
        argv += ["--artifacts-destination", destination, *flags]
        return self.timed(argv, env, uri.rpartition("/")[2])

    def gc(self, uri: str, destination: str, env: dict[str, str]) -> Measured:
        """Run ``mlflow gc``."""
        argv = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri]
        argv += ["--artifacts-destination", destination, "--tracking-uri", uri]
        return self.timed(argv, env, uri.rpartition("/")[2])

    def plain(self, source: str, kind: str) -> float:
        """Run the plain statements in one transaction; return the seconds."""
        self.copy(source, "plain")
        script = "BEGIN;" + ";".join(PLAIN[kind]) + ";COMMIT;"
        started = time.monotonic()
        self.server.sql("", "plain", stdin=script.encode())
        return time.monotonic() - started


@contextmanager
def slow_port(target: int, delay: float) -> Iterator[int]:
    """Yield a port that passes everything on to `target`, each direction's bytes `delay` / 2 seconds late."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with closing(sink):
            while not stop.is_set():
                if not select.select([source], [], [], 0.5)[0]:
                    continue
                try:
                    data = source.recv(1 << 20)
                    if not data:
                        return
                    time.sleep(delay / 2)
                    sink.sendall(data)
                except OSError:
                    return

    def accept() -> None:
        while not stop.is_set():
            if not select.select([listener], [], [], 0.5)[0]:
                continue
            try:
                client, _ = listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", target))
            for one, other in ((client, upstream), (upstream, client)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=pump, args=(one, other), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        stop.set()
        listener.close()


def write_objects(bucket: Path, runs: int) -> None:
    """Write the artifacts of all runs as files, before the S3 server starts and looks."""
    from hashlib import md5

    shutil.rmtree(bucket, ignore_errors=True)
    for number in range(1, runs + 1):
        folder = bucket / "1" / md5(f"run{number}".encode(), usedforsecurity=False).hexdigest() / "artifacts"
        folder.mkdir(parents=True)
        for index in range(OBJECTS):
            (folder / f"file{index}").write_bytes(b"x" * 100)


def line(name: str, ours: Measured, gc: Measured | None, plain: float | None = None) -> None:
    """Print one row of the table."""
    assert ours.left == 0, f"{name}: {ours.left} left"
    parts = [f"{name:<34}", f"cleanup {ours.seconds:7.2f} s {ours.peak / 1e6:5.0f} MB"]
    if gc:
        parts.append(
            f"gc {gc.seconds:7.2f} s {gc.peak / 1e6:5.0f} MB = {gc.seconds / ours.seconds:5.1f} x faster"
        )
    if plain:
        parts.append(f"limit {plain:6.2f} s = {ours.seconds / plain:4.2f} of it")
    print("  ".join(parts), flush=True)


def rows_only(bench: Bench) -> None:
    """Rows only, for N and N / 16 runs; with latency; one run with a very long history."""
    destination = str(bench.folder / "nothing")
    Path(destination).mkdir(exist_ok=True)
    large, small = max(int(8000 * bench.scale), 32), max(int(500 * bench.scale), 2)
    cost = {}
    for runs in (small, large):
        root = destination
        bench.database(
            "runs",
            EXPERIMENT.format(root=root).replace("'deleted', 1, 1", "'active', 1, 1"),
            RUNS.format(deleted=runs, live=LIVE, root=root, steps=20),
        )
        plain = bench.plain("runs", "runs")
        ours = bench.ours(bench.copy("runs", "ours"), destination, {})
        cost[runs] = ours.seconds / runs
        gc = bench.gc(bench.copy("runs", "gc"), destination, {})
        line(f"{runs} runs, rows only", ours, gc, plain)
        if runs == small:
            with slow_port(bench.server.port, 0.010) as port:
                mine, theirs = bench.copy("runs", "ours"), bench.copy("runs", "gc")
                via = [re.sub(r":\d+/", f":{port}/", uri) for uri in (mine, theirs)]
                line(
                    f"{runs} runs, 10 ms away",
                    bench.ours(via[0], destination, {}),
                    bench.gc(via[1], destination, {}),
                )
    print(f"cost a run, {large} against {small} runs: {cost[large] / cost[small]:.2f}")


def objects(bench: Bench) -> None:
    """Rows and objects in S3."""
    runs = max(int(8000 * bench.scale), 32)
    bench.database(
        "objects",
        EXPERIMENT.format(root="s3://bucket").replace("'deleted', 1, 1", "'active', 1, 1"),
        RUNS.format(deleted=runs, live=LIVE, root="s3://bucket", steps=20),
    )
    found = {}
    for name in ("ours", "gc"):
        root = bench.folder / f"s3-{name}"
        write_objects(root / "bucket", runs + LIVE)
        uri = bench.copy("objects", name)
        with s3_server(root) as env:
            found[name] = (
                bench.ours(uri, "s3://bucket", env) if name == "ours" else bench.gc(uri, "s3://bucket", env)
            )
        files = sum(len(names) for _, _, names in os.walk(root / "bucket"))
        assert files == LIVE * OBJECTS, f"{name}: {files} objects are left"
    line(f"{runs} runs, {runs * OBJECTS} objects", found["ours"], found["gc"])


def traces(bench: Bench) -> None:
    """Delete an experiment with many traces and spans."""
    count = max(int(10_000 * bench.scale), 10)
    destination = str(bench.folder / "nothing")
    Path(destination).mkdir(exist_ok=True)
    bench.database(
        "traces", EXPERIMENT.format(root=destination), TRACES.format(traces=count, root=destination)
    )
    plain = bench.plain("traces", "traces")
    ours = bench.ours(bench.copy("traces", "ours"), destination, {})
    line(
        f"experiment with {count} traces", ours, bench.gc(bench.copy("traces", "gc"), destination, {}), plain
    )


def history(bench: Bench) -> None:
    """Delete one run with millions of metric rows."""
    steps = max(int(60_000 * bench.scale), 10)
    destination = str(bench.folder / "nothing")
    Path(destination).mkdir(exist_ok=True)
    bench.database(
        "history",
        EXPERIMENT.format(root=destination).replace("'deleted', 1, 1", "'active', 1, 1"),
        RUNS.format(deleted=1, live=0, root=destination, steps=steps),
    )
    plain = bench.plain("history", "runs")
    ours = bench.ours(bench.copy("history", "ours"), destination, {})
    line(
        f"one run, {steps * 50} metric rows",
        ours,
        bench.gc(bench.copy("history", "gc"), destination, {}),
        plain,
    )


def unindexed(bench: Bench) -> None:
    """Delete runs while logged_model_metrics, which has no index on run_id, is large."""
    runs, rows = max(int(500 * bench.scale), 2), max(int(1_000_000 * bench.scale), 100)
    destination = str(bench.folder / "nothing")
    Path(destination).mkdir(exist_ok=True)
    bench.database(
        "unindexed",
        EXPERIMENT.format(root=destination).replace("'deleted', 1, 1", "'active', 1, 1"),
        RUNS.format(deleted=runs, live=LIVE, root=destination, steps=20),
        MODEL_METRICS.format(deleted=runs, live=LIVE, root=destination, rows=rows),
    )
    plain = bench.plain("unindexed", "indexed")
    ours = bench.ours(bench.copy("unindexed", "ours"), destination, {})
    gc = bench.gc(bench.copy("unindexed", "gc"), destination, {})
    line(f"{runs} runs, {rows} model metrics", ours, gc, plain)


CASES: dict[str, Callable[[Bench], None]] = {
    "rows": rows_only,
    "objects": objects,
    "traces": traces,
    "history": history,
    "unindexed": unindexed,
}


def run(scale: float = 1.0, only: str = ",".join(CASES)) -> None:
    """Run the benchmarks; each prints a line.

    Args:
        scale: share of the full size.
        only: names out of `CASES`, with commas.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory(prefix="bench-cleanup-") as folder, servers.postgres() as server:
        bench = Bench(server, Path(folder), scale)
        # a vacuum of the last copy would slow down whatever is measured next
        server.sql("ALTER SYSTEM SET autovacuum = off")
        server.sql("SELECT pg_reload_conf()")
        uri = server.create("empty")
        note("creating the schema")
        subprocess.run(
            [sys.executable, "-m", "mlflow", "db", "upgrade", uri], check=True, capture_output=True, cwd=ROOT
        )
        server.sql("DELETE FROM experiments", "empty")
        for name in only.split(","):
            CASES[name](bench)


def main() -> None:
    """Read the command line and run the benchmarks."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cleanup", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size (default: 1.0)")
    parser.add_argument("--only", default=",".join(CASES), help=f"some of {','.join(CASES)}")
    arguments = parser.parse_args()
    run(arguments.scale, arguments.only)


if __name__ == "__main__":
    main()
