"""The list of MLflow's own tables is that of the installed MLflow."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from database.tables import AUTH, TRACKING, is_mlflow

FOLDER = Path(importlib.util.find_spec("mlflow").submodule_search_locations[0])  # type: ignore[union-attr, index]
MADE = re.compile(r"(?:create_table|rename_table)\(\s*[\"'](\w+)[\"']|__tablename__ = [\"'](\w+)[\"']")


def test_every_table_that_the_installed_mlflow_makes_is_listed() -> None:
    for folder, listed in (
        ("store/db_migrations/versions", TRACKING),
        ("server/auth/db/migrations/versions", AUTH),
    ):
        files = list((FOLDER / folder).glob("*.py"))
        assert files
        made = {"".join(names) for file in files for names in MADE.findall(file.read_text())}
        temporary = {name for name in made if re.search(r"_?temp|_new$|_old$", name)}
        assert made - temporary <= listed
    modelled = {
        "".join(names)
        for file in FOLDER.glob("store/**/dbmodels/*.py")
        for names in MADE.findall(file.read_text())
    }
    assert modelled - {""} <= TRACKING
    assert modelled >= {"runs", "experiments", "model_versions"}


def test_tables_of_others_are_not() -> None:
    assert is_mlflow("runs")
    assert is_mlflow("alembic_version")
    assert not is_mlflow("pins")
