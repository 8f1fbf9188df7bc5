"""Many small runs at once, written with SQL and files: work for a cleanup that is going to be disturbed."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from tests.host.cleanup import world as made

if TYPE_CHECKING:
    from tests.host.cleanup.conftest import World

PARAMS = 3
FILES = 2


def add_runs(world: World, count: int, experiment: str, *, stage: str = "deleted") -> list[str]:
    """Add runs with params and with files in the (local) destination; return their ids."""
    ids = [uuid.uuid4().hex for _ in range(count)]
    root = Path(world.destination)
    for run in ids:
        folder = root / experiment / run / "artifacts"
        folder.mkdir(parents=True)
        for number in range(FILES):
            (folder / f"file{number}").write_text(run)
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


def broken(world: World, ids: list[str]) -> list[str]:
    """Return the runs that are neither whole nor gone: params without a run, or files without one."""
    there = set(world.rows("SELECT run_uuid FROM runs"))
    params: dict[str, int] = {}
    for run in world.rows("SELECT run_uuid FROM params"):
        params[run] = params.get(run, 0) + 1
    files = {part for key in world.objects() for part in key.split("/")}
    return [
        run
        for run in ids
        if (params.get(run, 0) != (PARAMS if run in there else 0)) or (run in files and run not in there)
    ]
