"""The data verbs through ``invoke``, on every stack of the host engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import data_verbs
from tests.host.database import old, servers
from tests.stack import StackUnderTest, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=["local", "minio-postgres", "quickstart"])
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StackUnderTest]:
    subject = StackUnderTest(request.param, "host", tmp_path_factory.mktemp("state"), free_ports())
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
    endpoint = f"http://127.0.0.1:{stack.settings['object_store_port']}"
    data_verbs.a_backup_in_a_bucket_restores(stack, tmp_path, endpoint, monkeypatch)


@pytest.mark.parametrize("stack", ["local"], indirect=True)
def test_an_interrupted_backup_leaves_none(stack: StackUnderTest, tmp_path: Path) -> None:
    data_verbs.an_interrupted_backup_leaves_none(stack, tmp_path)


@pytest.mark.parametrize("stack", ["local", "quickstart"], indirect=True)
def test_the_schema_is_current_and_migrate_changes_nothing(stack: StackUnderTest, tmp_path: Path) -> None:
    data_verbs.the_schema_is_current_and_migrate_changes_nothing(stack, tmp_path)


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
