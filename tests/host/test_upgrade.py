"""`invoke upgrade` on the host engine: there and back, and, whatever fails, exactly what ran before."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest, wait_until
from tests.support import story, upgrades
from tests.support.released import released
from tests.support.upgrades import NEW, OLD, kill_at, runs, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFLICT = "CREATE TABLE scheduler_leases (number INTEGER)"  # what a migration to 3.17 wants to create
# One line of a .pth file, which Python runs before anything else; Debian's has a `sitecustomize` of its own.
SABOTAGE = (
    'import os, sys; "services.smoke" in sys.orig_argv'
    ' and (os.write(2, b"a warning\\nerror: broken by the test\\n"), os._exit(1))\n'
)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    subject = StackUnderTest("local", "host", tmp_path_factory.mktemp("local"), free_ports())
    subject.up("--set", f"mlflow_version={OLD}")
    yield subject
    subject.down("--volumes", "--yes")
    assert not (subject.state / "mlflow").exists()


@pytest.fixture(scope="module")
def told(local: StackUnderTest, tmp_path_factory: pytest.TempPathFactory) -> story.Told:
    return story.tell(local.url, tmp_path_factory.mktemp("told"), megabytes=1)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def quickstart(local: StackUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    subject = StackUnderTest("quickstart", "host", tmp_path_factory.mktemp("quick"), free_ports())
    upgrades.lend(local, subject.state)
    subject.up("--set", f"mlflow_version={OLD}")
    yield subject
    subject.down("--volumes", "--yes")


def test_a_stack_of_a_released_version_is_upgraded(local: StackUnderTest, tmp_path: Path) -> None:
    """This project's: what its commit 4a324ba left behind, with MLflow 3.15.1 in it."""
    with released("4a324ba-host-local-3.15.1") as old:
        upgrades.lend(local, old.stack.state)
        old.stack.up()
        assert old.stack.service("mlflow")["version"] == OLD
        upgrade(old.stack, NEW, tmp_path / "sets")
        assert old.stack.service("mlflow")["version"] == NEW
        old.check(tmp_path)


def test_a_stack_goes_on_with_its_version(local: StackUnderTest) -> None:
    answer = local.invoke("up")
    assert f"stays on MLflow {OLD}" in answer.stderr
    assert f"invoke upgrade --to={NEW} --stack=local" in answer.stderr
    refused = local.invoke("up", "--set", f"mlflow_version={NEW}", expect=1)
    assert f"invoke upgrade --to={NEW} --stack=local" in refused.stderr
    assert local.service("mlflow")["version"] == OLD
    assert f"runs MLflow {OLD} already" in local.invoke("upgrade", f"--to={OLD}").stderr


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3.15.99", "package index has no MLflow 3.15.99"),
        ("3.2.0", "MLflow 3.2.0 is too old to run here"),
        ("latest", "'latest' is no version of MLflow"),
    ],
)
def test_a_version_that_cannot_be_had_is_refused_before_anything_changes(
    local: StackUnderTest, sets: Path, version: str, reason: str
) -> None:
    before = local.service("mlflow")["uptime"]
    answer = upgrade(local, version, sets, expect=1)
    assert "fails at its pre-flight" in answer.stderr
    assert reason in answer.stderr
    assert "nothing was changed" in answer.stderr
    assert local.service("mlflow")["uptime"] >= before  # whole seconds: a restart would begin at 0


def test_without_an_answer_the_plan_is_shown_and_nothing_changes(local: StackUnderTest, sets: Path) -> None:
    before = local.service("mlflow")["uptime"]
    answer = local.invoke("upgrade", f"--to={NEW}", f"--backups={sets}")
    assert f"MLflow {OLD} becomes {NEW}" in answer.stderr
    assert "revisions forward" in answer.stderr
    assert "nothing was changed" in answer.stderr
    assert local.service("mlflow")["uptime"] >= before  # whole seconds: a restart would begin at 0


def test_a_kill_while_the_version_is_fetched_changes_nothing(
    local: StackUnderTest, told: story.Told, sets: Path, tmp_path: Path
) -> None:
    process = local.start("upgrade", "--to=3.14.0", f"--backups={sets}", "--yes")
    partial = local.state / "mlflow" / "3.14.0.partial"
    wait_until(partial.exists, lambda: str(process.poll()))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    runs(local, OLD, told, tmp_path)
    assert not (local.state / "mlflow" / "3.14.0").exists()


def test_a_migration_that_fails_leaves_all_as_it_was(
    local: StackUnderTest, told: story.Told, sets: Path, tmp_path: Path
) -> None:
    database = local.state / "data" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(CONFLICT)
    answer = upgrade(local, NEW, sets, expect=1)
    assert "failed at its step 'migrate'" in answer.stderr
    assert f"runs MLflow {OLD} as before" in answer.stderr
    runs(local, OLD, told, tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE scheduler_leases")


@pytest.mark.parametrize("step", ["migrate", "start"])
def test_an_upgrade_killed_at_a_step_is_put_back_by_up(
    local: StackUnderTest, told: story.Told, sets: Path, tmp_path: Path, step: str
) -> None:
    kill_at(local, NEW, sets, step)
    refused = local.invoke("migrate", f"--to={sets}", "--yes", expect=1)
    assert "an upgrade of stack 'local' was cut off" in refused.stderr
    answer = local.invoke("up")
    assert f"was cut off at its step '{step}'" in answer.stderr
    runs(local, OLD, told, tmp_path)


def test_there_and_back_with_sqlite(local: StackUnderTest, tmp_path: Path) -> None:
    upgrades.there_and_back(local, tmp_path)


def test_a_newer_version_without_a_backup_of_its_day_stays(
    local: StackUnderTest, told: story.Told, sets: Path, tmp_path: Path
) -> None:
    upgrade(local, NEW, sets)
    answer = upgrade(local, OLD, tmp_path, expect=1)
    assert "MLflow has no migration backwards" in answer.stderr
    runs(local, NEW, told, tmp_path)


def test_a_version_that_does_not_work_is_put_back(
    local: StackUnderTest, told: story.Told, sets: Path, tmp_path: Path
) -> None:
    """Backwards, so that data of its day was restored before that turns out."""
    [packages] = (local.state / "mlflow" / OLD).glob("lib/python3*/site-packages")
    (packages / "sabotage.pth").write_text(SABOTAGE)
    later = story.some_run(local.url).info.run_id
    answer = upgrade(local, OLD, sets, expect=1)
    (packages / "sabotage.pth").unlink()
    assert "failed at its step 'smoke test': broken by the test" in answer.stderr
    runs(local, NEW, told, tmp_path)
    assert later in upgrades.all_runs(local)


def test_there_and_back_with_postgresql_an_object_store_and_the_gateway(
    quickstart: StackUnderTest, tmp_path: Path
) -> None:
    later, kept = upgrades.there_and_back(quickstart, tmp_path)
    told = story.tell(quickstart.url, tmp_path, megabytes=1)
    kill_at(quickstart, NEW, tmp_path / "sets", "migrate")
    assert "was cut off at its step 'migrate'" in quickstart.invoke("up", "--stack=quickstart").stderr
    runs(quickstart, OLD, told, tmp_path)

    # What was logged in between is kept in the backup that was taken first.
    upgrade(quickstart, NEW, tmp_path / "sets")
    quickstart.invoke("restore", "--stack=quickstart", f"--backup={kept}", "--yes")
    assert later in upgrades.all_runs(quickstart)
