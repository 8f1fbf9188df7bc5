"""How fast and how large cleanup is, as ratios against ``mlflow gc`` and against plain SQL.

``python -m benchmarks.cleanup [--scale=1.0] [--only=NAME,...]``. Both baselines are measured in the same run:

- ``mlflow gc`` of the installed MLflow, once: it takes minutes.
- The limit, plain set-based SQL: psql deletes everything in one transaction with one DELETE a table. It checks
  nothing, locks nothing beforehand and knows no artifacts. In turn with cleanup, and the best of each counts.
  Where there are objects, LIST and batched DeleteObjects empty the whole bucket beside it.

All three start from a copy of the same vacuumed and analysed database on the same server, with the same indexes and
right after a checkpoint. Seconds are those of the whole process, the start of Python or psql included.
"""

from __future__ import annotations

import argparse  # a tool that only we type
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.deleting import (
    EXPERIMENT,
    LIVE,
    MODEL_METRICS,
    OBJECTS,
    ROOT,
    RUNS,
    TRACES,
    Bench,
    best,
    slow_port,
    write_objects,
)
from console import note
from develop.scratch import servers
from develop.scratch.stock import s3_server

if TYPE_CHECKING:
    from collections.abc import Callable


def rows_only(bench: Bench) -> None:
    """Delete many runs without artifacts, and a sixteenth of them."""
    many, few = bench.runs(8000), bench.runs(500)
    plain, (ours, small) = bench.in_turn(many, few)
    what = f"{bench.size(8000)} runs, rows only"
    bench.against_plain(what, ours, plain, at_most=1.3)
    bench.against_gc(what, ours, bench.gc(bench.copy(many, "gc"), bench.nothing), at_least=12)
    bench.memory(what, ours)
    cost = [1000 * item.deleting / bench.size(full) for item, full in ((ours, 8000), (small, 500))]
    bench.flat(
        "deleting one of these runs", cost[0], cost[1], f"one of {bench.size(500)}: {cost[1]:.2f} ms", "ms"
    )
    peaks = ours.peak / 1e6, small.peak / 1e6
    bench.flat("memory for these runs", *peaks, f"{bench.size(500)} runs: {peaks[1]:.0f} MB", "MB")


def far_away(bench: Bench) -> None:
    """Delete runs from a database that answers 10 ms later."""
    few = bench.runs(500)
    with slow_port(bench.server.port, 0.010) as port:
        ours, gc = (
            run(re.sub(r":\d+/", f":{port}/", bench.copy(few, run.__name__)), bench.nothing)
            for run in (bench.ours, bench.gc)
        )
    bench.against_gc(f"{bench.size(500)} runs, 10 ms to the database", ours, gc, at_least=10)


def objects(bench: Bench) -> None:
    """Rows and objects in S3."""
    runs = bench.size(8000)
    moved = f"UPDATE runs SET artifact_uri = replace(artifact_uri, '{bench.nothing}', 's3://bucket');"
    source = bench.database("objects", moved, template=bench.runs(8000))
    measured, root = [], bench.folder / "s3"
    write_objects(root / "bucket", runs)
    with s3_server(root) as env:
        plain = bench.plain_with_objects(source, env)
    assert not any(names for _, _, names in os.walk(root / "bucket")), "plain: objects are left"
    for run in (bench.ours, bench.ours, bench.gc):
        write_objects(root / "bucket", runs + LIVE)
        uri = bench.copy(source, run.__name__)
        with s3_server(root) as env:
            measured.append(run(uri, "s3://bucket", env))
        files = sum(len(names) for _, _, names in os.walk(root / "bucket"))
        assert files == LIVE * OBJECTS, f"{run.__name__}: {files} objects are left"
    ours = best(measured[:2])
    what = f"{runs} runs with {runs * OBJECTS} objects"
    bench.against_plain(what, ours, plain, name="plain SQL beside S3")
    bench.against_gc(what, ours, measured[2], at_least=15)
    bench.memory(what, ours)


def traces(bench: Bench) -> None:
    """Delete an experiment with many traces and spans."""
    count = bench.size(10_000)
    source = bench.database(
        "traces",
        EXPERIMENT.format(root=bench.nothing),
        TRACES.format(traces=count, root=bench.nothing),
    )
    ours = best([bench.ours(bench.copy(source, "ours"), bench.nothing) for _ in range(2)])
    what = f"{count} traces with {count * 10} spans"
    bench.against_gc(what, ours, bench.gc(bench.copy(source, "gc"), bench.nothing), at_least=20)
    bench.memory(what, ours)


def history(bench: Bench) -> None:
    """Delete one run with millions of metric rows."""
    steps = bench.size(60_000)
    source = bench.database(
        "history",
        EXPERIMENT.format(root=bench.nothing).replace("'deleted', 1, 1", "'active', 1, 1"),
        RUNS.format(deleted=1, live=0, root=bench.nothing, steps=steps),
    )
    plain, (ours,) = bench.in_turn(source, rounds=3)
    bench.against_plain(f"one run with {steps * 50} metric rows", ours, plain, at_most=1.5)


def unindexed(bench: Bench) -> None:
    """Delete runs while logged_model_metrics, which has no index on run_id, is large."""
    runs, rows = bench.size(500), bench.size(1_000_000)
    filled = MODEL_METRICS.format(deleted=runs, live=LIVE, root=bench.nothing, rows=rows)
    source = bench.database("unindexed", filled, template=bench.runs(500))
    ours = best([bench.ours(bench.copy(source, "ours"), bench.nothing) for _ in range(2)])
    gc = bench.gc(bench.copy(source, "gc"), bench.nothing)
    bench.against_gc(f"{runs} runs, {rows} model metrics", ours, gc, at_least=20)


CASES: dict[str, Callable[[Bench], None]] = {
    "rows": rows_only,
    "latency": far_away,
    "objects": objects,
    "traces": traces,
    "history": history,
    "unindexed": unindexed,
}


def run(scale: float = 1.0, only: str = ",".join(CASES)) -> None:
    """Run the benchmarks; each prints its lines, and all of them stand together at the end.

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
        started = time.monotonic()
        for name in only.split(","):
            CASES[name](bench)
        print(f"\nin {time.monotonic() - started:.0f} s, at {scale} of the full size:")
        print(*bench.figures, sep="\n")


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
