"""What a registered version needs stays, also where the registry is another database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cleanup.__main__ import main
from console import UserError
from tests.support.small import Small, reasons

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def registry(empty_sqlite: Path, tmp_path: Path) -> Iterator[Small]:
    registry = Small(empty_sqlite, tmp_path / "registry")
    yield registry
    registry.close()


@pytest.mark.parametrize("names", ["the run", "a path", "a logged model", "where it is stored"])
def test_a_version_in_another_database_keeps_what_it_needs(
    small: Small, registry: Small, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small.experiment("e")
    needed, free = small.run(experiment), small.run(experiment)
    model = small.model(experiment, needed)
    place = f"{small.artifacts(needed)}/deep"
    registry.version("shop", "/elsewhere/x", needed if names == "the run" else None)
    sources = {"a path": f"source = 'file://{place}'", "a logged model": f"source = 'models:/{model}'"}
    sources |= {"where it is stored": f"storage_location = '{place}'"}
    if names in sources:
        registry.sql(f"UPDATE model_versions SET {sources[names]}")
    small.delete(needed, free)
    small.sql("UPDATE logged_models SET lifecycle_stage = 'deleted', last_updated_timestamp_ms = 1")
    before = small.files()
    kept = model if names == "a logged model" else needed
    monkeypatch.setenv("MLFLOW_REGISTRY_STORE_URI", registry.uri)
    flags = ["--backend-store-uri", small.uri, "--artifacts-destination", str(small.root), "--yes"]
    assert main(flags) == 0
    assert {name for name in before if kept in name} <= set(small.files())
    assert not any(free in name for name in small.files())
    assert reasons(small.clean(registry.uri)) == {kept: "registered model version shop/1 needs it"}
    registry.registry.delete_model_version("shop", "1")
    assert reasons(small.clean(registry.uri)) == {}
    assert small.files() == {}


def test_a_registry_that_is_none_is_refused(small: Small, tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE model_versions (name TEXT)")
    small.delete(small.run(small.experiment("e")))
    before = small.files()
    with pytest.raises(UserError, match="no MLflow tables"):
        small.clean(f"sqlite:///{tmp_path}/other.db")
    assert small.files() == before
