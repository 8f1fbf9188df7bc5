"""What somebody has who used MLflow 2.9 on a laptop, and that all of it reads back from a server of today."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow

from tests.databases import content
from tests.support import old_databases, story
from tests.support.old_databases import contained


def write(folder: Path) -> dict[str, Any]:
    """Write `mlflow.db` and `mlruns/`; returns what a server that serves those artifacts should read."""
    script, values = (
        old_databases.script("2.9.2", "sqlite").decode(),
        json.dumps(old_databases.expected("2.9.2", "sqlite")),
    )
    [place] = set(re.findall(r"/tmp/tmp\w+", script))  # noqa: S108 (where it was written)
    here = folder / "mlruns"
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.executescript(script.replace(f"{place}/mlruns", str(here)).replace(place, str(here)))
    for run in json.loads(values)["runs"].values():
        model = Path(run["artifact_uri"].replace(f"file://{place}", str(here))) / "model"
        model.mkdir(parents=True)
        (model / "weights").write_text(_mark(run["artifact_uri"]))
    for before in (f"{place}/mlruns", f"file://{place}", place):
        values = values.replace(before, "mlflow-artifacts:")
    moved: dict[str, Any] = json.loads(values)
    moved["models"]["ranker"]["aliases"] = {"champion": "2"}  # a number in the database, text for a client
    return moved


def check(url: str, expected: dict[str, Any], folder: Path) -> None:
    """Read all of it with today's client, and open every artifact."""
    assert contained(expected, content.read(url)) == []
    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)
    for run, values in expected["runs"].items():
        path = mlflow.artifacts.download_artifacts(f"runs:/{run}/model/weights", dst_path=str(folder))
        assert Path(path).read_text() == _mark(values["artifact_uri"])
    [model] = mlflow.artifacts.list_artifacts("models:/ranker@champion")
    assert model.path == "weights"
    assert story.some_run(url).data.metrics == {"x": 1.0}


def _mark(artifact_uri: str) -> str:
    """What the artifact of a run says, wherever it is."""
    return "/".join(artifact_uri.split("/")[-3:])
