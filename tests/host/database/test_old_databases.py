"""What MLflow 2.0.1 to 3.15.1 wrote migrates to the head, and today's client reads all of it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backups.migrate import migrate, plan
from tests.databases.content import read
from tests.support import old_databases

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ["sqlite", "postgresql"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", old_databases.VERSIONS)
def test_a_database_of_an_older_mlflow_reads_the_same_after_its_migration(
    version: str, kind: str, old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    uri = old_database(version, kind)
    assert plan(uri).schema.state == "behind"
    result = migrate(uri, tmp_path / "sets")
    assert result.after.state == "current"
    assert result.backup is not None
    before, after = old_databases.expected(version, kind), read(uri)
    assert old_databases.contained(before, after) == []
    assert {part: len(before[part]) for part in before} == {part: len(after[part]) for part in before}
    assert len(after["runs"]) == 6
    number = tuple(map(int, version.split(".")))
    assert bool(before["traces"]) == (number >= (2, 16))  # every version wrote what it knows
    assert bool(before["logged_models"]) == (number >= (3,))
    assert all(run["params"] and run["tags"] and run["history"] for run in before["runs"].values())
