"""What the benchmark of cleanup measures with: databases full of deleted runs, and the three that delete them."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import seconds
from console import note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from develop.scratch import servers

ROOT = Path(__file__).parents[1]
LIVE = 200
OBJECTS = 5
MEMORY = 120e6  # bytes that cleanup may take

# Every row has the parent that its foreign key asks for: checking that, and filling indexes row by row, would take
# most of the time.
FILL = "SET session_replication_role = replica; SET maintenance_work_mem = '512MB';"
# "0 *" makes the planner go run by run, so that the rows of one lie together as a client writes them
RUNS = """
INSERT INTO runs (user_id, run_uuid, name, source_type, status, start_time, lifecycle_stage,
                  artifact_uri, experiment_id, deleted_time)
SELECT 'u', md5('run' || n), 'r' || n, 'LOCAL', 'FINISHED', 1,
       CASE WHEN n <= {deleted} THEN 'deleted' ELSE 'active' END,
       '{root}/1/' || md5('run' || n) || '/artifacts', 1, CASE WHEN n <= {deleted} THEN 1 END
FROM generate_series(1, {deleted} + {live}) n;
INSERT INTO params (key, value, run_uuid)
SELECT 'p' || k, 'value ' || k, run_uuid FROM runs, generate_series(1, 20 + 0 * length(run_uuid)) k;
INSERT INTO tags (key, value, run_uuid)
SELECT 't' || k, 'tag ' || k, run_uuid FROM runs, generate_series(1, 10 + 0 * length(run_uuid)) k;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT 'm' || k, k, 1, {steps}, false, run_uuid FROM runs, generate_series(1, 50 + 0 * length(run_uuid)) k;
ALTER TABLE metrics DROP CONSTRAINT metric_pk;
DROP INDEX index_metrics_run_uuid;
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
SELECT 'm' || k, s * 1.5, s, run_uuid, s, false
FROM runs, generate_series(1, {steps} + 0 * length(run_uuid)) s, generate_series(1, 50 + 0 * s) k;
CREATE INDEX index_metrics_run_uuid ON metrics (run_uuid);
ALTER TABLE metrics ADD CONSTRAINT metric_pk PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan);
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
PLAIN = [
    *(
        f"DELETE FROM {table} WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted')"
        for table in ("metrics", "latest_metrics", "params", "tags")
    ),
    "DELETE FROM runs WHERE lifecycle_stage = 'deleted'",
]

PLAIN_OBJECTS = """
import boto3, os
from concurrent.futures import ThreadPoolExecutor
client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
with ThreadPoolExecutor(8) as pool:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        keys = [{"Key": item["Key"]} for item in page["Contents"]]
        pool.submit(client.delete_objects, Bucket="bucket", Delete={"Objects": keys, "Quiet": True})
"""


@dataclass(frozen=True)
class Measured:
    """Wall seconds and peak memory in bytes of a process, and the seconds that it says its deleting took."""

    seconds: float
    peak: int
    deleting: float = 0.0


@dataclass(frozen=True)
class Figure:
    """One line of the table: `ours` against a baseline, both with their units, and what the ratio must be."""

    what: str
    ours: str
    baseline: str
    ratio: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Whether the ratio is what is needed."""
        if self.at_least is not None:
            return self.ratio >= self.at_least
        return self.at_most is None or self.ratio <= self.at_most

    def __str__(self) -> str:
        if self.at_least is not None:
            need = f">= {self.at_least}"
        else:
            need = "" if self.at_most is None else f"<= {self.at_most}"
        cells = (f"{self.what:<40}", f"{self.ours:>9}", f"{self.baseline:<27}", f"{self.ratio:6.2f}")
        return " | ".join((*cells, f"{need:<7}", "yes" if self.met else "NO"))


@dataclass
class Bench:
    """One PostgreSQL, a folder, an empty database of the newest schema to start from, and what was found."""

    server: servers.Postgres
    folder: Path
    scale: float
    figures: list[Figure] = field(default_factory=list)
    filled: set[str] = field(default_factory=set)

    @property
    def nothing(self) -> str:
        """An artifact destination without artifacts."""
        path = self.folder / "nothing"
        path.mkdir(exist_ok=True)
        return str(path)

    def size(self, full: int) -> int:
        """Return a number of rows at this scale."""
        return max(int(full * self.scale), 2)

    def database(self, name: str, *scripts: str, template: str = "empty") -> str:
        """Make a database from another one, once, and fill it; return its name."""
        if name not in self.filled:
            note(f"filling the database {name}")
            self._copy(template, name)
            self.server.sql("", name, stdin=(FILL + "".join(scripts)).encode())
            self.server.sql("VACUUM ANALYZE", name)
            self.filled.add(name)
        return name

    def runs(self, full: int) -> str:
        """Return the name of a database with so many deleted runs, and 200 live ones."""
        deleted = self.size(full)
        active = EXPERIMENT.replace("'deleted', 1, 1", "'active', 1, 1").format(root=self.nothing)
        return self.database(
            f"runs{deleted}", active, RUNS.format(deleted=deleted, live=LIVE, root=self.nothing, steps=20)
        )

    def _copy(self, source: str, target: str) -> None:
        self.server.sql(f'DROP DATABASE IF EXISTS "{target}"')
        self.server.sql(f'CREATE DATABASE "{target}" TEMPLATE "{source}" STRATEGY file_copy')

    def copy(self, source: str, target: str) -> str:
        """Copy a database; return the copy's URI."""
        self._copy(source, target)
        self.server.sql("CHECKPOINT")
        return self.server.uri(target)

    def timed(self, argv: list[str], env: dict[str, str], database: str) -> Measured:
        """Run a program to its end, and see that it deleted everything."""
        out, log = self.folder / "out", self.folder / "log"
        started = time.monotonic()
        with out.open("wb") as output, log.open("wb") as errors:
            process = subprocess.Popen(argv, cwd=ROOT, env=os.environ | env, stdout=output, stderr=errors)
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, log.read_text()[-3000:]
        for query in (
            "SELECT count(*) FROM runs WHERE lifecycle_stage = 'deleted'",
            "SELECT count(*) FROM trace_info",
        ):
            assert self.server.sql(query, database) == "0", f"left by {argv}: {query}"
        deleting = json.loads(out.read_text())["seconds"] if "--json" in argv else 0.0
        return Measured(wall, usage.ru_maxrss * 1024, deleting)

    def ours(self, uri: str, destination: str, env: dict[str, str] | None = None) -> Measured:
        """Run cleanup."""
        argv = [sys.executable, "-m", "cleanup", "--yes", "--json", "--backend-store-uri", uri]
        argv += ["--artifacts-destination", destination]
        return self.timed(argv, env or {}, uri.rpartition("/")[2])

    def gc(self, uri: str, destination: str, env: dict[str, str] | None = None) -> Measured:
        """Run ``mlflow gc``."""
        argv = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri]
        argv += ["--artifacts-destination", destination, "--tracking-uri", uri]
        return self.timed(argv, env or {}, uri.rpartition("/")[2])

    def plain(self, source: str) -> float:
        """Run the plain statements in one transaction; return the seconds."""
        self.copy(source, "plain")
        return seconds(self._run_plain)

    def _run_plain(self) -> None:
        script = "BEGIN;" + ";".join(PLAIN) + ";COMMIT;"
        self.server.sql("", "plain", stdin=script.encode())

    def plain_with_objects(self, source: str, env: dict[str, str]) -> float:
        """Run the plain statements, and beside them LIST and batched DeleteObjects; return the seconds."""
        self.copy(source, "plain")

        def both() -> None:
            beside = subprocess.Popen([sys.executable, "-c", PLAIN_OBJECTS], env=os.environ | env)
            self._run_plain()
            assert beside.wait() == 0

        return seconds(both)

    def in_turn(self, *sources: str, rounds: int = 2) -> tuple[float, list[Measured]]:
        """Run the plain statements on the first database and cleanup on each, in turn.

        Returns:
            The best of the plain statements, and the best cleanup of each database.
        """
        plain, ours = [], []
        for _ in range(rounds):
            plain.append(self.plain(sources[0]))
            ours.append([self.ours(self.copy(source, "ours"), self.nothing) for source in sources])
        return min(plain), [best(column) for column in zip(*ours, strict=True)]

    def against_gc(self, what: str, ours: Measured, gc: Measured, at_least: float) -> None:
        """Say how many times faster than ``mlflow gc`` cleanup is."""
        self._add(what, ours, f"mlflow gc {gc.seconds:.1f} s", gc.seconds / ours.seconds, at_least=at_least)

    def against_plain(
        self, what: str, ours: Measured, plain: float, at_most: float | None = None, name: str = "plain SQL"
    ) -> None:
        """Say what cleanup takes of the limit."""
        self._add(what, ours, f"{name} {plain:.2f} s", ours.seconds / plain, at_most=at_most)

    def memory(self, what: str, ours: Measured) -> None:
        """Say what share of the memory that it may take cleanup takes."""
        allowed = f"{MEMORY / 1e6:.0f} MB allowed"
        self._figure(Figure(what, f"{ours.peak / 1e6:.0f} MB", allowed, ours.peak / MEMORY, at_most=1))

    def flat(self, what: str, large: float, small: float, baseline: str, unit: str) -> None:
        """Say how something grows from few runs to many."""
        self._figure(Figure(what, f"{large:.2f} {unit}", baseline, large / small, at_most=1.3))

    def _add(self, what: str, ours: Measured, baseline: str, ratio: float, **need: float | None) -> None:
        self._figure(Figure(what, f"{ours.seconds:.2f} s", baseline, ratio, **need))

    def _figure(self, figure: Figure) -> None:
        self.figures.append(figure)
        print(figure, flush=True)


def best(measured: Sequence[Measured]) -> Measured:
    """Return the quickest, with the highest peak of all."""
    quickest = min(measured, key=lambda item: item.seconds)
    return Measured(quickest.seconds, max(item.peak for item in measured), quickest.deleting)


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
            for source, sink in ((client, upstream), (upstream, client)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()

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
