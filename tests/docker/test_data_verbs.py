"""The data verbs through ``invoke``, on every stack of the Compose engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest
from stacks.engines import compose
from stacks.verbs import data
from tests.support import data_verbs, laptop, story
from verbs import Backup, Restore

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


@pytest.fixture
def bucket_endpoint() -> str:
    return "http://object-store:9000"


class TestOnCompose(data_verbs.OnEitherEngine):
    """What the host engine runs as well."""


@pytest.mark.parametrize("stack", ["local", "minio-postgres"], indirect=True)
def test_a_set_belongs_to_whoever_made_it(
    stack: StackUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to root, and not to the user that the server runs as: here to one who is neither."""
    somebody = 12345
    sets = tmp_path / "sets"
    sets.mkdir()
    os.chown(sets, somebody, somebody)
    monkeypatch.setattr(compose, "this_user", lambda: f"{somebody}:{somebody}")
    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    told = story.tell(stack.url, tmp_path, megabytes=1)
    data.backup(Backup(to=str(sets), stack=stack.name))
    assert {path.stat().st_uid for path in sets.rglob("*")} == {somebody}
    [backup] = sets.glob("2*")
    data.restore(Restore(backup=str(backup), yes=True, stack=stack.name))
    story.check(stack.url, told, tmp_path)
    story.tell(stack.url, tmp_path, megabytes=1)


@pytest.mark.parametrize("stack", ["local", "minio-postgres"], indirect=True)
def test_what_mlflow_2_9_wrote_on_a_laptop_moves_in(stack: StackUnderTest, tmp_path: Path) -> None:
    """It takes the place of what is there; `tests/host/test_readme.py` tells it of the quickstart."""
    written, sets = laptop.write(tmp_path), tmp_path / "sets"
    database, runs = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlruns"
    words = (f"--backend-store-uri={database}", f"--artifacts-destination={runs}", f"--to={sets}")
    stack.invoke("backup", *words)
    stack.invoke("restore", f"--stack={stack.name}", f"--backup={sets}/latest", "--yes")
    laptop.check(stack.url, written, tmp_path)
