"""The data verbs through ``invoke``, on every stack of the Compose engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import data_verbs
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


def test_what_needs_the_programs_of_postgresql_says_so(stack: StackUnderTest) -> None:
    for words in (["backup"], ["migrate"], ["restore", "--backup=/nonexistent"]):
        answer = stack.invoke(*words, f"--stack={stack.name}", expect=1)
        assert "does not reach the data of a stack on the compose engine yet" in answer.stderr
