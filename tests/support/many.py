"""Many small runs at once, written with SQL and objects: work for a cleanup that is going to be disturbed."""

from __future__ import annotations

import os
import sys
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from artifacts.s3 import s3_client
from cleanup import execution
from cleanup.__main__ import main
from tests.support import world as made

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

    from cleanup.report import Report
    from tests.support.cleaned import World

PARAMS = 3
FILES = 2


def add_runs(world: World, count: int, experiment: str, *, stage: str = "deleted") -> list[str]:
    """Add runs with params and with objects in the destination; return their ids."""
    ids = [uuid.uuid4().hex for _ in range(count)]
    root = world.destination
    put(
        root,
        [f"{experiment}/{run}/artifacts/file{number}" for run in ids for number in range(FILES)],
    )
    engine = made.engine_for(world.uri)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO runs (run_uuid, name, source_type, status, start_time, lifecycle_stage, artifact_uri,"
                " experiment_id, deleted_time, user_id) VALUES (:run, 'r', 'LOCAL', 'FINISHED', 1, :stage,"
                " :uri, :experiment, :deleted, 'u')"
            ),
            [
                {
                    "run": run,
                    "stage": stage,
                    "uri": f"{root}/{experiment}/{run}/artifacts",
                    "experiment": int(experiment),
                    "deleted": 1 if stage == "deleted" else None,
                }
                for run in ids
            ],
        )
        connection.execute(
            text("INSERT INTO params (key, value, run_uuid) VALUES (:key, 'v', :run)"),
            [{"key": f"p{number}", "run": run} for run in ids for number in range(PARAMS)],
        )
    engine.dispose()
    return ids


def put(destination: str, keys: list[str]) -> None:
    """Write a small object under each key."""
    if not destination.startswith("s3://"):
        for key in keys:
            path = Path(destination) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(key)
        return
    bucket, _, prefix = destination.removeprefix("s3://").partition("/")
    client = s3_client()
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda key: client.put_object(
                    Bucket=bucket, Key=f"{prefix}/{key}".lstrip("/"), Body=key.encode()
                ),
                keys,
            )
        )


def add_metrics(world: World, run: str, count: int) -> None:
    """Add this many metric rows to a run."""
    numbers = (
        "SELECT generate_series(1, :count) AS step"
        if world.uri.startswith("postgresql")
        else "WITH RECURSIVE numbers (step) AS"
        " (SELECT 1 UNION ALL SELECT step + 1 FROM numbers WHERE step < :count) SELECT step FROM numbers"
    )
    world.sql(
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)"
        f" SELECT 'bulk', step, step, :run, step, false FROM ({numbers}) AS numbers",
        run=run,
        count=count,
    )


def broken(world: World, ids: list[str]) -> list[str]:
    """Return the runs that are neither whole nor gone: params without a run, or files without one."""
    # in one statement: what a killed process has sent to PostgreSQL may be committed at any moment
    owners = world.rows(
        "SELECT 'run ' || run_uuid FROM runs UNION ALL SELECT 'param ' || run_uuid FROM params"
    )
    there = {row.removeprefix("run ") for row in owners if row.startswith("run ")}
    params = Counter(row.removeprefix("param ") for row in owners if row.startswith("param "))
    files = {part for key in world.objects() for part in key.split("/")}
    return [
        run
        for run in ids
        if (params[run] != (PARAMS if run in there else 0)) or (run in files and run not in there)
    ]


def cleanup_in_small_batches(argv: list[str], env: dict[str, str], begun: Event) -> None:
    """Be a cleanup process that has many moments to be killed at, and says when the first of them comes."""
    os.environ.update(env)
    execution.ONE_WRITER_BATCH = execution.LARGEST_BATCH = 10
    really = execution.execute

    def execute(*words: Any, **flags: Any) -> Report:
        begun.set()
        return really(*words, **flags)

    execution.execute = execute
    sys.exit(main(argv))
