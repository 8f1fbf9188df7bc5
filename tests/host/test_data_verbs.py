"""The data verbs through ``invoke``, on every stack of the host engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import data_verbs, story
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
    told = story.tell(stack.url, tmp_path, megabytes=1)
    name = f"--stack={stack.name}"
    stack.invoke("backup", name, f"--to={tmp_path / 'sets'}")
    [taken] = sorted((tmp_path / "sets").iterdir())
    story.tell(stack.url, tmp_path, megabytes=1)
    stack.invoke("restore", name, f"--backup={taken}", "--yes")
    story.check(stack.url, told, tmp_path)
    listed = stack.invoke("backups", f"--to={tmp_path / 'sets'}", "--verify").stdout
    assert taken.name in listed


def test_the_schema_of_a_stack_is_current(stack: StackUnderTest) -> None:
    assert "the schema is current" in stack.invoke("migrate", f"--stack={stack.name}", "--check").stderr
