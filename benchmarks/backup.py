"""Backup and restore against pg_dump, pg_restore and `rclone copy` of the same data, as ratios.

    python benchmarks/backup.py [--rows=2000000] [--objects=10000] [--bytes=20000] [--rounds=3]

The baseline writes the same things to the same disk: ``pg_dump -Fc`` and a plain ``rclone copy``, then
``pg_restore`` in one transaction and ``rclone copy`` back. All of it is done `--rounds` times in turn and the
median of each counts, so that a busy machine is busy for all of them; before each, what the one before has left to
do (dirty pages, a checkpoint) is answer. Memory is that of the command line with its programs, not of the server.
"""

from __future__ import annotations

import argparse  # a tool that only we type
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from backups.backup import back_up
from backups.restore import restore
from backups.sets import list_sets
from benchmarks.measure import show
from console import note
from database.connection import connect
from database.schema import prepare
from develop.scratch import servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from backups.sets import BackupSet

ROOT = Path(__file__).parents[1]
# Between this process and the one that is measured: a new program's peak begins with that of whoever started it.
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], check=False).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
FILL = """
INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (1, 'bench', 'active');
INSERT INTO runs (run_uuid, experiment_id, status, lifecycle_stage, name)
  SELECT md5(n::text), 1, 'FINISHED', 'active', 'run ' || n FROM generate_series(1, {runs}) n;
INSERT INTO metrics (key, value, "timestamp", run_uuid, step, is_nan)
  SELECT 'metric ' || mod(n, 10), random(), 1700000000000 + n, md5((1 + mod(n, {runs}))::text), n / 10, false
  FROM generate_series(1, {rows}) n;
ANALYZE;
"""


def rclone(source: Path, target: Path) -> None:
    """Copy a folder, and wait until it is on disk."""
    program = Path(sys.executable).parent / "rclone"
    subprocess.run([str(program), "copy", "--config", "", str(source), str(target)], check=True)
    os.sync()


def make_database(server: servers.Postgres, name: str, rows: int) -> str:
    """Make an MLflow database with so many metric rows and return its URI."""
    uri = server.create(name)
    prepare(uri)
    with connect(uri).begin() as connection:
        connection.exec_driver_sql(FILL.format(rows=rows, runs=max(1, rows // 1000)))
    return uri


def make_artifacts(store: Path, objects: int, size: int) -> None:
    """Fill an artifact destination with files that count as written long ago."""
    for number in range(objects):
        path = store / "1" / f"run{number % 1000}" / "artifacts" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        os.utime(path, (1_600_000_000, 1_600_000_000))


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

    def seconds(work: Callable[[], None]) -> float:
        server.sql("CHECKPOINT")
        os.sync()
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return {
        "plain backup": seconds(plain_backup),
        "backup": seconds(backup),
        "second backup": seconds(backup),
        "plain restore": seconds(plain_restore),
        "restore": seconds(put_back),
    }


def peak(uri: str, into: str, store: Path, here: Path) -> float:
    """Return the most memory in MB that a backup or a restore and its programs have taken, as a user runs them."""
    here.mkdir()

    def command(*words: str) -> float:
        argv = [sys.executable, "-c", MEASURED, sys.executable, "-m", "backups", *words]
        answer = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        if answer.returncode:
            raise SystemExit(answer.stderr)
        return int(answer.stdout) / 1000

    sets = here / "sets"
    saving = command(
        "backup", f"--backend-store-uri={uri}", f"--artifacts-destination={store}", f"--to={sets}"
    )
    newest = list_sets(sets)[0][0].path
    back = f"--artifacts-destination={here / 'back'}"
    return max(saving, command("restore", f"--backend-store-uri={into}", back, f"--backup={newest}", "--yes"))


def run(rows: int = 2_000_000, objects: int = 10_000, size: int = 20_000, rounds: int = 3) -> None:
    """Measure and print.

    Args:
        rows: metric rows.
        objects: artifacts.
        size: bytes of each.
        rounds: how often each part is measured.
    """
    with servers.postgres() as server, tempfile.TemporaryDirectory(prefix="mlflow-stacks-bench-") as name:
        folder = Path(name)
        few, many = make_database(server, "few", rows // 10), make_database(server, "bench", rows)
        copy = server.create("copy")
        make_artifacts(folder / "artifacts", objects, size)
        rounds_of: dict[str, list[float]] = {}
        for number in range(rounds):
            here = folder / f"round{number}"
            here.mkdir()
            for what, value in measure_round(server, folder / "artifacts", here).items():
                rounds_of.setdefault(what, []).append(value)
                note(f"round {number + 1}: {what} {value:.2f} s")
            shutil.rmtree(here)
        taken = {what: statistics.median(values) for what, values in rounds_of.items()}
        memory = [
            peak(uri, copy, folder / "artifacts", folder / f"peak of {uri.rpartition('/')[2]}")
            for uri in (few, many)
        ]
    show("backup", taken["backup"], taken["plain backup"], "pg_dump and rclone copy", unit="s", at_most=1.2)
    show(
        "restore",
        taken["restore"],
        taken["plain restore"],
        "pg_restore and rclone copy",
        unit="s",
        at_most=1.2,
    )
    show("second backup", taken["second backup"], taken["backup"], "the first", unit="s", at_most=0.2)
    show("peak memory", memory[1], memory[0], "that with a tenth of the rows", unit="MB", at_most=1.1)


def main() -> None:
    """Read the command line and run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    run(given.rows, given.objects, given.bytes, given.rounds)


if __name__ == "__main__":
    main()
