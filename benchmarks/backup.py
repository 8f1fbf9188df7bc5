"""Backup and restore against pg_dump, pg_restore and `rclone copy` of the same data, as ratios.

    python benchmarks/backup.py [--rows=2000000] [--objects=10000] [--bytes=20000] [--json]

The baseline writes the same things to the same disk: ``pg_dump -Fc`` and a plain ``rclone copy``, then
``pg_restore`` and ``rclone copy`` back. Each is measured `--repeat` times in turn; the best of each counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from console import emit_json, note
from database.backup import back_up
from database.connection import connect
from database.restore import restore
from database.schema import prepare
from tests.host.database import servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from database.sets import BackupSet

FILL = """
INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (1, 'bench', 'active');
INSERT INTO runs (run_uuid, experiment_id, status, lifecycle_stage, name)
  SELECT md5(n::text), 1, 'FINISHED', 'active', 'run ' || n FROM generate_series(1, {runs}) n;
INSERT INTO metrics (key, value, "timestamp", run_uuid, step, is_nan)
  SELECT 'metric ' || mod(n, 10), random(), 1700000000000 + n, md5((1 + mod(n, {runs}))::text), n / 10, false
  FROM generate_series(1, {rows}) n;
ANALYZE;
"""


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def rclone(source: Path, target: Path) -> None:
    """Copy a folder, and wait until it is on disk."""
    program = Path(sys.executable).parent / "rclone"
    subprocess.run([str(program), "copy", "--config", "", str(source), str(target)], check=True)
    os.sync()


def measure(rows: int, objects: int, size: int, repeat: int) -> dict[str, float]:
    """Return seconds of each part and the ratios between them."""
    with servers.postgres() as server, tempfile.TemporaryDirectory(prefix="mlflow-stacks-bench-") as name:
        folder = Path(name)
        uri = server.create("bench")
        server.create("copy")
        prepare(uri)
        with connect(uri).begin() as connection:
            connection.exec_driver_sql(FILL.format(rows=rows, runs=max(1, rows // 1000)))
        store = folder / "artifacts"
        for number in range(objects):
            path = store / "1" / f"run{number % 1000}" / "artifacts" / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(size))
            os.utime(path, (1_600_000_000, 1_600_000_000))
        os.sync()
        best: dict[str, float] = {}
        for number in range(repeat):
            here = folder / f"round{number}"
            here.mkdir()
            for what, value in measure_round(server, store, here).items():
                best[what] = min(best.get(what, value), value)
                note(f"round {number + 1}: {what} {value:.2f} s")
            shutil.rmtree(here)
        return best


def measure_round(server: servers.Postgres, store: Path, here: Path) -> dict[str, float]:
    """Return the seconds of each part, measured once."""
    sets: list[BackupSet] = []

    def plain_backup() -> None:
        server.run(["pg_dump", *server.flags, "-Fc", "-f", str(here / "dump"), "-d", "bench"])
        rclone(store, here / "copied")

    def plain_restore() -> None:
        once = ["--clean", "--if-exists", "-1"]
        server.run(["pg_restore", *server.flags, *once, "-d", "copy", str(here / "dump")])
        rclone(here / "copied", here / "restored")

    def backup() -> None:
        sets.append(back_up(server.uri("bench"), here / "sets", destination=str(store), keep=None))

    def put_back() -> None:
        restore(server.uri("copy"), sets[0].path, destination=str(here / "back"))
        os.sync()

    seconds = {"plain backup": timed(plain_backup), "backup": timed(backup), "second backup": timed(backup)}
    return {**seconds, "plain restore": timed(plain_restore), "restore": timed(put_back)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    best = measure(given.rows, given.objects, given.bytes, given.repeat)
    ratios = {
        "backup / (pg_dump + rclone copy)": best["backup"] / best["plain backup"],
        "restore / (pg_restore + rclone copy)": best["restore"] / best["plain restore"],
        "second backup / first": best["second backup"] / best["backup"],
    }
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    if given.json:
        emit_json({"ratios": ratios, "seconds": best, "peak_rss_mb": megabytes})
        return
    for what, ratio in ratios.items():
        note(f"{what}: {ratio:.2f}")
    note(f"peak memory of this process: {megabytes:.0f} MB")


if __name__ == "__main__":
    main()
