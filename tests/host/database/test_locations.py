"""Where rows say that artifacts are, after these have moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from backups.backup import back_up
from backups.restore import restore
from database.connection import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ["sqlite", "postgresql"]
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)


@pytest.fixture(params=KINDS)
def uri(request: pytest.FixtureRequest, old_database: Callable[[str, str], str]) -> str:
    return old_database("3.15.1", request.param)


def locations(uri: str) -> dict[str, str]:
    """The location of each experiment by its name, of its runs by theirs, and whatever else names one."""
    queries = {
        "experiment": "SELECT name, artifact_location FROM experiments",
        "run": "SELECT name, artifact_uri FROM runs",
        "version": "SELECT CAST(version AS VARCHAR), storage_location FROM model_versions",
        "source": "SELECT CAST(version AS VARCHAR), source FROM model_versions",
        "model": "SELECT name, artifact_location FROM logged_models",
        "trace": "SELECT request_id, value FROM trace_tags WHERE key = 'mlflow.artifactLocation'",
    }
    with connect(uri).connect() as connection:
        return {
            f"{kind} {name}": place
            for kind, query in queries.items()
            for name, place in connection.exec_driver_sql(query).all()
        }


def test_what_was_below_the_old_destination_is_below_the_new_one(
    uri: str, new_uri: Callable[[str], str], tmp_path: Path
) -> None:
    before = locations(uri)
    place = before["experiment one"].removeprefix("file://").removesuffix("/one")
    root = tmp_path / "with space" / "mlruns"
    root.mkdir(parents=True)
    with connect(uri).begin() as connection:

        def change(statement: str, **values: str) -> None:
            connection.execute(text(f"UPDATE {statement}"), values)

        for table, column in COLUMNS:
            encoded = root.as_uri().removeprefix("file://")
            change(f"{table} SET {column} = replace({column}, :old, :new)", old=place, new=encoded)
        change("experiments SET artifact_location = './mlruns/0' WHERE experiment_id = 0")
        change("experiments SET artifact_location = 'file:///elsewhere/two' WHERE name = 'two'")
        change("runs SET artifact_uri = 'mlflow-artifacts:/3/x/artifacts' WHERE name = 'run 2'")
        change("runs SET artifact_uri = :to WHERE name = 'run 3'", to=f"{root}/plain/artifacts")
        change("runs SET artifact_uri = :to WHERE name = 'run 5'", to=f"{root}2/artifacts")
    backup = back_up(uri, tmp_path / "sets", destination=str(root))
    assert backup.artifacts is not None
    assert backup.artifacts["outside"] == {"experiments": 1, "runs": 1}

    fresh = new_uri("sqlite" if uri.startswith("sqlite") else "postgresql")
    new = tmp_path / "new"
    result = restore(fresh, backup.path, destination=str(new), artifact_root="mlflow-artifacts:/")
    after = locations(fresh)
    expected = {key: value.replace(f"file://{place}", "mlflow-artifacts:") for key, value in before.items()}
    expected |= {
        "experiment Default": "mlflow-artifacts:/0",
        "experiment two": "file:///elsewhere/two",
        "run run 2": "mlflow-artifacts:/3/x/artifacts",
        "run run 3": "mlflow-artifacts:/plain/artifacts",
        "run run 5": f"{root}2/artifacts",
    }
    assert after == expected
    assert result.artifacts is not None
    assert (
        result.artifacts["moved"] == sum(":/" in value and "mlflow" in value for value in after.values()) - 1
    )

    again = new_uri("sqlite" if uri.startswith("sqlite") else "postgresql")
    restore(again, backup.path, destination=str(new))  # no server: the rows name the place itself
    assert locations(again)["run run 3"] == f"{new}/plain/artifacts"
    back = new_uri("sqlite" if uri.startswith("sqlite") else "postgresql")
    restore(back, backup.path, destination=str(root), artifact_root="mlflow-artifacts:/")
    assert locations(back) == locations(uri)  # they have not moved
