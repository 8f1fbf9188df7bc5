"""The data verbs through ``invoke``, on every stack of the Compose engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from stacks import maintenance
from stacks.engines import compose
from tests import data_verbs, laptop, story
from tests.host.database import old, servers
from tests.stack import StackUnderTest, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", params=["local", "minio-postgres", "quickstart"])
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StackUnderTest]:
    subject = StackUnderTest(request.param, "compose", tmp_path_factory.mktemp("state"), free_ports())
    subject.up()
    yield subject
    subject.down("--volumes", "--yes")


def test_cleanup_deletes_what_was_deleted_and_nothing_else(stack: StackUnderTest, tmp_path: Path) -> None:
    data_verbs.cleanup_deletes_what_was_deleted_and_nothing_else(stack, tmp_path)


def test_usage_names_the_experiments(stack: StackUnderTest, tmp_path: Path) -> None:
    data_verbs.usage_names_the_experiments(stack, tmp_path)


def test_a_backup_restores_what_was_there(stack: StackUnderTest, tmp_path: Path) -> None:
    data_verbs.a_backup_restores_what_was_there(stack, tmp_path)


@pytest.mark.parametrize("stack", ["minio-postgres"], indirect=True)
def test_a_backup_in_a_bucket_restores(
    stack: StackUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = "http://object-store:9000"
    data_verbs.a_backup_in_a_bucket_restores(stack, tmp_path, endpoint, monkeypatch)


@pytest.mark.parametrize("stack", ["local"], indirect=True)
def test_an_interrupted_backup_leaves_none(stack: StackUnderTest, tmp_path: Path) -> None:
    data_verbs.an_interrupted_backup_leaves_none(stack, tmp_path)


@pytest.mark.parametrize("stack", ["local", "quickstart"], indirect=True)
def test_the_schema_is_current_and_migrate_changes_nothing(stack: StackUnderTest, tmp_path: Path) -> None:
    data_verbs.the_schema_is_current_and_migrate_changes_nothing(stack, tmp_path)


@pytest.mark.parametrize("stack", ["local", "minio-postgres"], indirect=True)
def test_a_set_belongs_to_whoever_made_it(
    stack: StackUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to root, and not to the user that the server runs as: here to one who is neither."""
    somebody = 12345
    sets = tmp_path / "sets"
    sets.mkdir()
    os.chown(sets, somebody, somebody)
    monkeypatch.setattr(compose, "_this_user", lambda: f"{somebody}:{somebody}")
    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    told = story.tell(stack.url, tmp_path, megabytes=1)
    maintenance.backup({"to": str(sets)}, stack=stack.name, backend_store_uri="")
    assert {path.stat().st_uid for path in sets.rglob("*")} == {somebody}
    [one] = sets.glob("2*")
    maintenance.restore({"backup": str(one), "yes": True}, stack=stack.name, backend_store_uri="")
    story.check(stack.url, told, tmp_path)
    story.tell(stack.url, tmp_path, megabytes=1)


@pytest.mark.parametrize("stack", ["quickstart"], indirect=True)
def test_a_schedule_cleans_up_and_logs_what_it_did(stack: StackUnderTest) -> None:
    data_verbs.a_schedule_cleans_up_and_logs_what_it_did(stack)


@pytest.mark.parametrize("stack", ["local"], indirect=True)
def test_a_sqlite_schema_that_is_behind_is_migrated(
    stack: StackUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the place of what is there, and so does the next one."""
    uri = old.sqlite_database("3.10.1", tmp_path / "old.db")
    data_verbs.a_schema_that_is_behind_is_migrated(stack, uri, tmp_path, monkeypatch)


@pytest.mark.parametrize("stack", ["minio-postgres"], indirect=True)
def test_a_postgresql_schema_that_is_behind_is_migrated(
    stack: StackUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.postgres() as server:
        uri = old.postgresql_database("3.10.1", server, "old")
        data_verbs.a_schema_that_is_behind_is_migrated(stack, uri, tmp_path, monkeypatch)


@pytest.mark.parametrize("stack", ["local", "minio-postgres"], indirect=True)
def test_what_mlflow_2_9_wrote_on_a_laptop_moves_in(stack: StackUnderTest, tmp_path: Path) -> None:
    """It takes the place of what is there; `tests/host/test_readme.py` tells it of the quickstart."""
    written, sets = laptop.write(tmp_path), tmp_path / "sets"
    database, runs = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlruns"
    words = (f"--backend-store-uri={database}", f"--artifacts-destination={runs}", f"--to={sets}")
    stack.invoke("backup", *words)
    stack.invoke("restore", f"--stack={stack.name}", f"--backup={sets}/latest", "--yes")
    laptop.check(stack.url, written, tmp_path)
