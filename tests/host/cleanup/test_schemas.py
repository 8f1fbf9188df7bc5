"""Cleanup on the databases that every MLflow from 2.0.1 on wrote, which it never migrates."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect, text

from tests.support import old_databases
from tests.support.cleaned import World
from tests.support.world import dangling

if TYPE_CHECKING:
    from develop.scratch.servers import Postgres

_numbers = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=old_databases.VERSIONS)
def old_world(request: pytest.FixtureRequest, kind: str, tmp_path: Path, postgres: Postgres) -> World:
    """Return the database of an old version, its deleted runs with artifacts in a local folder."""
    version = str(request.param)
    if kind == "sqlite":
        uri = old_databases.sqlite_database(version, tmp_path / "mlflow.db")
    else:
        uri = old_databases.postgresql_database(version, postgres, f"old{next(_numbers)}")
    destination = tmp_path / "artifacts"
    world = World(uri, str(destination), {}, {}, [None])
    engine = world.engine
    with engine.connect() as connection:
        runs = connection.execute(text("SELECT run_uuid, artifact_uri FROM runs")).all()
    for run, location in runs:
        folder = destination / location.removesuffix("/artifacts").rpartition("/")[2]
        assert folder.name == run
        (folder / "artifacts").mkdir(parents=True)
        (folder / "artifacts" / "file").write_text(run)
    with engine.begin() as connection:  # the folder that the version wrote to is not on this machine
        for run, _ in runs:
            connection.execute(
                text("UPDATE runs SET artifact_uri = :uri WHERE run_uuid = :run"),
                {"uri": f"{destination}/{run}/artifacts", "run": run},
            )
        experiments = connection.execute(text("SELECT experiment_id FROM experiments")).scalars().all()
        for experiment in experiments:
            connection.execute(
                text("UPDATE experiments SET artifact_location = :uri WHERE experiment_id = :id"),
                {"uri": f"{destination}/{experiment}", "id": experiment},
            )
    return world


def everything(world: World) -> dict[str, list[Any]]:
    """Return every row of every table, as text."""
    engine = world.engine
    with engine.connect() as connection:
        return {
            table: sorted(repr(tuple(row)) for row in connection.execute(text(f'SELECT * FROM "{table}"')))
            for table in inspect(engine).get_table_names()
        }


def test_deleted_things_go_and_every_row_that_has_nothing_to_do_with_them_stays(old_world: World) -> None:
    world = old_world
    before = everything(world)
    deleted = set(world.rows("SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted'"))
    gone = set(world.rows("SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'deleted'"))
    registered = set(world.rows("SELECT run_id FROM model_versions WHERE run_id IS NOT NULL"))
    first = world.cleanup("--yes", "--include-undated")
    assert deleted
    assert gone
    assert {item["id"] for item in first["skipped"] if item["kind"] == "run"} == deleted & registered
    assert set(world.rows("SELECT run_uuid FROM runs")) & deleted == deleted & registered
    assert dangling(world.engine) == {}
    world.cleanup("--yes", "--include-undated", "--force-registered")
    after = everything(world)
    runs = set(world.rows("SELECT run_uuid FROM runs"))
    assert not deleted & runs
    assert not gone & set(world.rows("SELECT experiment_id FROM experiments"))
    assert dangling(world.engine) == {}
    assert {Path(key).parts[0] for key in world.objects()} == runs
    assert before["alembic_version"] == after["alembic_version"]
    for table in ("metrics", "params", "tags", "latest_metrics", "runs"):
        assert after[table] == [row for row in before[table] if not any(run in row for run in deleted)]


def test_the_plan_changes_nothing(old_world: World) -> None:
    before = everything(old_world)
    old_world.cleanup("--dry-run")
    assert everything(old_world) == before
