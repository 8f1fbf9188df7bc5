"""What the data verbs must do on every stack and engine: the story that `tests/host` and `tests/docker` tell."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest

from backups.backup import back_up
from develop.scratch import servers
from develop.scratch.stack import wait_until
from stacks import engines
from stacks.state.opening import open_recorded
from stacks.verbs import data
from tests.support import answers, old_databases, story
from verbs import Restore

if TYPE_CHECKING:
    from develop.scratch.stack import StackUnderTest


class OnEitherEngine:
    """The tests that both engines run, in this order.

    A module gives the fixtures: `stack`, each of those that keep data in turn, and `bucket_endpoint`, where such a
    stack's own store is reached by what the stack runs.
    """

    def test_cleanup_deletes_what_was_deleted_and_nothing_else(
        self, stack: StackUnderTest, tmp_path: Path
    ) -> None:
        """A deleted run goes with its artifacts; what lives reads back as it was written."""
        live = story.tell(stack.url, tmp_path, megabytes=1)
        doomed = story.tell(stack.url, tmp_path, megabytes=1)
        client = mlflow.MlflowClient(stack.url)
        client.delete_registered_model(doomed.model)
        client.delete_experiment(doomed.experiment)

        words = ("cleanup", f"--stack={stack.name}")
        plan = stack.invoke(*words, "--dry-run", "--json")
        assert answers.read("cleanup", plan.stdout)["dry_run"] is True
        without_terminal = stack.invoke(*words)
        assert "nothing was changed" in without_terminal.stderr
        assert client.get_run(doomed.parent).info.lifecycle_stage == "deleted"

        report = answers.read("cleanup", stack.invoke(*words, "--yes", "--json").stdout)
        assert report["deleted"]["runs"] == 2
        assert report["deleted"]["experiments"] == 1
        assert report["artifacts"]["bytes"] > 2**20
        assert report["left"] == 0
        assert doomed.parent not in {
            run.info.run_id for run in _all_runs(client, doomed.experiment, live.experiment)
        }
        story.check(stack.url, live, tmp_path)
        again = json.loads(stack.invoke(*words, "--yes", "--json").stdout)
        assert set(again["deleted"].values()) == {0}

    @pytest.mark.parametrize("stack", ["local"], indirect=True)
    def test_cleanup_says_how_old_the_newest_backup_is_or_takes_one_first(
        self, stack: StackUnderTest, tmp_path: Path
    ) -> None:
        client, words = (
            mlflow.MlflowClient(stack.url),
            ("cleanup", f"--stack={stack.name}", f"--to={tmp_path}"),
        )
        doomed = story.some_run(stack.url).info.run_id
        client.delete_run(doomed)
        assert f"stack '{stack.name}' has no backup in {tmp_path}" in stack.invoke(*words, "--dry-run").stderr
        unanswered = stack.invoke(*words, "--backup", "--json")
        assert json.loads(unanswered.stdout)["dry_run"] is True
        assert not list(tmp_path.glob("2*"))

        answer = stack.invoke(*words, "--backup", "--yes", "--json")
        assert json.loads(answer.stdout)["deleted"]["runs"] == 1
        [kept] = answers.read("backups", stack.invoke("backups", f"--to={tmp_path}", "--json").stdout)["sets"]
        assert kept["stack"] == stack.name
        assert "is 0 days and 0 hours old" in stack.invoke(*words, "--dry-run").stderr
        stack.invoke("restore", f"--stack={stack.name}", f"--backup={kept['path']}", "--yes", "--no-backup")
        assert client.get_run(doomed).info.lifecycle_stage == "deleted"

    def test_usage_names_the_experiments(self, stack: StackUnderTest, tmp_path: Path) -> None:
        """As JSON, and as a page in a file of this machine."""
        used = answers.read("usage", stack.invoke("usage", f"--stack={stack.name}", "--json").stdout)
        assert any(row["runs"] > 0 and row["bytes"] > 2**20 for row in used["experiments"])
        page = tmp_path / "usage.html"
        stack.invoke("usage", f"--stack={stack.name}", f"--html={page}")
        assert page.read_text().startswith("<!doctype html>")

    def test_a_backup_restores_what_was_there(self, stack: StackUnderTest, tmp_path: Path) -> None:
        """The first set whole, the second one linked to it; what came later is gone, and what was there reads back."""
        sets, name = tmp_path / "sets", f"--stack={stack.name}"
        told = story.tell(stack.url, tmp_path, megabytes=1)
        time.sleep(
            5
        )  # what is younger than three seconds when it is listed may change once more, and is not linked
        first = answers.read("backup", stack.invoke("backup", name, f"--to={sets}", "--json").stdout)
        second = json.loads(stack.invoke("backup", name, f"--to={sets}", "--keep=2", "--json").stdout)
        later = story.tell(stack.url, tmp_path, megabytes=1)
        assert first["artifacts"]["bytes"] > 2**20
        assert [backup["path"] for backup in (first, second)] == [
            str(path) for path in sorted(sets.glob("2*"))
        ]
        linked = [path for path in sets.rglob("*") if path.is_file() and path.stat().st_nlink > 1]
        assert any(path.name == "blob.bin" for path in linked)
        assert {path.stat().st_uid for path in sets.rglob("*")} == {os.getuid()}
        with_key = "gateway-sync" in (service["name"] for service in stack.status()["services"])
        assert first["keys"] == (["gateway-passphrase"] if with_key else [])

        unanswered = stack.invoke("restore", name, f"--backup={second['path']}", expect=1).stderr
        assert "nothing was changed" in unanswered
        assert "stopping" not in unanswered
        assert "stopping" not in stack.invoke("restore", name, "--backup=/etc", "--yes", expect=1).stderr

        restored = stack.invoke("restore", name, f"--backup={second['path']}", "--yes", "--json")
        assert answers.read("restore", restored.stdout)["rows"] == second["database"]["rows"]
        story.check(stack.url, told, tmp_path)
        runs = _all_runs(mlflow.MlflowClient(stack.url), told.experiment, later.experiment)
        assert {run.info.run_id for run in runs} == {told.parent, told.child}
        story.tell(stack.url, tmp_path, megabytes=1)  # what was put back is the server's own again

        assert "damage" not in stack.invoke("backups", f"--to={sets}", "--verify").stderr
        shutil.rmtree(sets)  # by this user

    @pytest.mark.parametrize("stack", ["minio-postgres"], indirect=True)
    def test_a_backup_in_a_bucket_restores(
        self, stack: StackUnderTest, tmp_path: Path, bucket_endpoint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With keys and an address that are those of the environment, not the stack's: here beside its artifacts."""
        monkeypatch.setenv("BACKUP_S3_ENDPOINT_URL", bucket_endpoint)
        for variable, secret in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")):
            monkeypatch.setenv(variable, (stack.state / "secrets" / f"object-store-{secret}").read_text())
        sets, name = "s3://mlflow/backups", f"--stack={stack.name}"
        told = story.tell(stack.url, tmp_path, megabytes=1)
        first = json.loads(stack.invoke("backup", name, f"--to={sets}", "--json").stdout)
        later = story.tell(stack.url, tmp_path, megabytes=1)
        assert first["path"].startswith(f"{sets}/2")
        stack.invoke("restore", name, f"--backup={sets}/latest", "--yes")
        story.check(stack.url, told, tmp_path)
        runs = _all_runs(mlflow.MlflowClient(stack.url), told.experiment, later.experiment)
        assert {run.info.run_id for run in runs} == {told.parent, told.child}

    @pytest.mark.parametrize("stack", ["local"], indirect=True)
    def test_an_interrupted_backup_leaves_none(self, stack: StackUnderTest, tmp_path: Path) -> None:
        """Ctrl-C ends the work wherever it is done; what is left is no set, and the next backup goes well."""
        sets, words = (
            tmp_path / "sets",
            ("backup", f"--stack={stack.name}", f"--to={tmp_path / 'sets'}", "--json"),
        )
        sets.mkdir()
        with (sets / "backups.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # it waits for this one
            process = stack.start(*words)
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "waiting up to" in line, line
            os.kill(process.pid, signal.SIGINT)
            process.communicate(timeout=120)
        assert process.returncode == 130
        assert [path.name for path in sets.iterdir()] == ["backups.lock"]
        assert json.loads(stack.invoke(*words).stdout)["path"] == str(next(sets.glob("2*")))

    @pytest.mark.parametrize("stack", ["local", "quickstart"], indirect=True)
    def test_the_schema_is_current_and_migrate_changes_nothing(
        self, stack: StackUnderTest, tmp_path: Path
    ) -> None:
        """Not even the server, for a moment."""
        name = f"--stack={stack.name}"
        assert "the schema is current" in stack.invoke("migrate", name, "--check").stderr
        answer = stack.invoke("migrate", name, f"--to={tmp_path}", "--yes", "--json")
        result = answers.read("migrate", answer.stdout)
        assert (result["state"], result["migrated"], result["backup"]) == ("current", 0, None)
        assert "stopping" not in answer.stderr
        assert story.some_run(stack.url).data.metrics == {"x": 1.0}

    @pytest.mark.parametrize("stack", ["quickstart"], indirect=True)
    def test_a_schedule_cleans_up_and_logs_what_it_did(self, stack: StackUnderTest) -> None:
        """Switched on for a stack that runs already, at every minute; the next minute is waited for."""
        client = mlflow.MlflowClient(stack.url)
        live, doomed = story.some_run(stack.url).info, story.some_run(stack.url).info
        client.delete_run(doomed.run_id)
        stack.up("--set", "cleanup_schedule=* * * * *", "--set", "cleanup_older_than=0m")

        def log() -> str:
            return stack.invoke("logs", f"--stack={stack.name}", "--service=cleanup").stdout

        wait_until(lambda: "exit code 0 " in log(), log)
        assert "next cleanup at" in log()
        assert re.search(r'exit code 0 \{"deleted": \{"runs": [1-9]', log()), log()
        there = {run.info.run_id for run in _all_runs(client, doomed.experiment_id)}
        assert live.run_id in there
        assert doomed.run_id not in there

    @pytest.mark.parametrize("stack", ["local"], indirect=True)
    def test_a_sqlite_schema_that_is_behind_is_migrated(
        self, stack: StackUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It takes the place of what is there, and so does the next one."""
        uri = old_databases.sqlite_database("3.10.1", tmp_path / "old.db")
        _a_schema_that_is_behind_is_migrated(stack, uri, tmp_path, monkeypatch)

    @pytest.mark.parametrize("stack", ["minio-postgres"], indirect=True)
    def test_a_postgresql_schema_that_is_behind_is_migrated(
        self, stack: StackUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with servers.postgres() as server:
            uri = old_databases.postgresql_database("3.10.1", server, "old")
            _a_schema_that_is_behind_is_migrated(stack, uri, tmp_path, monkeypatch)


def _a_schema_that_is_behind_is_migrated(
    stack: StackUnderTest, uri: str, folder: Path, patch: pytest.MonkeyPatch
) -> None:
    """A database of an older MLflow: no server starts on it, `migrate` backs it up first and then it does.

    Args:
        stack: which gets the content of that database.
        uri: its address; of the stack's kind.
        folder: for backups.
        patch: for the stack's environment.
    """
    for variable, value in stack.environment().items():
        patch.setenv(variable, value)
    engine, name = engines.running(open_recorded(stack.name)), f"--stack={stack.name}"
    backup = back_up(uri, folder / "old")
    engine.stop("mlflow")
    assert data.put_back(engine, Restore(backup=str(backup.path), yes=True)) == 0

    refused = stack.invoke("up", name, f"--engine={stack.engine}", expect=1).stderr
    assert "revisions behind" in refused
    assert "invoke migrate" in refused
    assert "the schema is behind" in stack.invoke("migrate", name, "--check", expect=1).stderr
    result = json.loads(stack.invoke("migrate", name, f"--to={folder}/sets", "--yes", "--json").stdout)
    assert result["state"] == "current"
    assert result["migrated"] > 10
    assert (Path(result["backup"]) / "manifest.json").exists()
    stack.up()
    client = mlflow.MlflowClient(stack.url)
    every = client.search_experiments(mlflow.entities.ViewType.ALL)
    experiments = [experiment.experiment_id for experiment in every]
    assert len(_all_runs(client, *experiments)) == backup.database["rows"]["runs"]


def _all_runs(client: mlflow.MlflowClient, *experiments: str) -> list[mlflow.entities.Run]:
    return list(client.search_runs(list(experiments), run_view_type=mlflow.entities.ViewType.ALL))
