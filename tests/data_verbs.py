"""What the data verbs must do on every stack and engine: the story that `tests/host` and `tests/docker` tell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import mlflow

from tests import story

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stack import StackUnderTest


def cleanup_deletes_what_was_deleted_and_nothing_else(stack: StackUnderTest, folder: Path) -> None:
    """A deleted run goes with its artifacts; what lives reads back as it was written."""
    live = story.tell(stack.url, folder, megabytes=1)
    doomed = story.tell(stack.url, folder, megabytes=1)
    client = mlflow.MlflowClient(stack.url)
    client.delete_registered_model(doomed.model)
    client.delete_experiment(doomed.experiment)

    words = ("cleanup", f"--stack={stack.name}")
    plan = stack.invoke(*words, "--dry-run", "--json")
    assert json.loads(plan.stdout)["dry_run"] is True
    without_terminal = stack.invoke(*words)
    assert "nothing was changed" in without_terminal.stderr
    assert client.get_run(doomed.parent).info.lifecycle_stage == "deleted"

    report = json.loads(stack.invoke(*words, "--yes", "--json").stdout)
    assert report["deleted"]["runs"] == 2
    assert report["deleted"]["experiments"] == 1
    assert report["artifacts"]["bytes"] > 2**20
    assert report["left"] == 0
    assert doomed.parent not in {
        run.info.run_id for run in _all_runs(client, doomed.experiment, live.experiment)
    }
    story.check(stack.url, live, folder)
    again = json.loads(stack.invoke(*words, "--yes", "--json").stdout)
    assert set(again["deleted"].values()) == {0}


def usage_names_the_experiments(stack: StackUnderTest, folder: Path) -> None:
    """As JSON, and as a page in a file of this machine."""
    used = json.loads(stack.invoke("usage", f"--stack={stack.name}", "--json").stdout)
    assert any(row["runs"] > 0 and row["bytes"] > 2**20 for row in used["experiments"])
    page = folder / "usage.html"
    stack.invoke("usage", f"--stack={stack.name}", f"--html={page}")
    assert page.read_text().startswith("<!doctype html>")


def _all_runs(client: mlflow.MlflowClient, *experiments: str) -> list[mlflow.entities.Run]:
    return list(client.search_runs(list(experiments), run_view_type=mlflow.entities.ViewType.ALL))
