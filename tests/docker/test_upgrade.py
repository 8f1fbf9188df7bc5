"""`invoke upgrade` on the Compose engine: there and back on a running quickstart, and what fails is put back."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest
from tests.support import story, upgrades
from tests.support.upgrades import NEW, OLD, kill_at, runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    subject = StackUnderTest("quickstart", "compose", tmp_path_factory.mktemp("state"), free_ports())
    subject.up("--set", f"mlflow_version={OLD}")
    image = json.loads((subject.state / "stack.json").read_text())["images"]["mlflow"]
    yield subject
    subject.down("--volumes", "--yes")
    subprocess.run(["docker", "image", "rm", image], check=True, capture_output=True)


def test_there_and_back(stack: StackUnderTest, tmp_path: Path) -> None:
    upgrades.there_and_back(stack, tmp_path)


def test_an_upgrade_killed_in_its_migration_is_put_back_by_up(stack: StackUnderTest, tmp_path: Path) -> None:
    told = story.tell(stack.url, tmp_path, megabytes=1)
    kill_at(stack, NEW, tmp_path / "sets", "migrate")
    assert "was cut off at its step 'migrate'" in stack.invoke("up", f"--stack={stack.name}").stderr
    runs(stack, OLD, told, tmp_path)
