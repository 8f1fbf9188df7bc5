"""What was down stays down, whatever restore and migrate make of the data of a stack that nobody runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from backups.backup import back_up
from develop.scratch.stack import StackUnderTest
from stacks.engines.supervisord import PID_FILE
from stacks.state import record
from stacks.state.opening import open_deployment
from stacks.verbs import data
from tests.support import old_databases
from verbs import Migrate, Restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFLICT = "CREATE TABLE scheduler_leases (number INTEGER)"  # what a migration to 3.17 wants to create


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackUnderTest:
    """A stack that was taken down; its database is one of MLflow 3.10.1."""
    subject = StackUnderTest("local", "host", tmp_path / "state", {})
    for variable, value in subject.environment().items():
        monkeypatch.setenv(variable, value)
    record.remember(open_deployment("local"), "host", secrets=[])
    record.taken_down(subject.state)
    (subject.state / "data" / "artifacts").mkdir(parents=True)
    old_databases.sqlite_database("3.10.1", subject.state / "data" / "mlflow.db")
    return subject


def stays_down(stack: StackUnderTest, does: Callable[[], None], ends: int) -> None:
    """Hold that a verb ends with an exit code, and starts nothing meanwhile or afterwards."""
    before = (stack.state / record.RECORD).read_bytes()
    code = 0
    try:
        does()
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == ends
    assert not (stack.state / PID_FILE).exists()
    assert not (stack.state / "logs").exists()
    assert (stack.state / record.RECORD).read_bytes() == before


def test_a_migration_starts_no_server_of_a_stack_that_is_down(stack: StackUnderTest, tmp_path: Path) -> None:
    asked = Migrate(stack="local", to=str(tmp_path / "sets"))
    stays_down(stack, lambda: data.migrate(asked), 1)  # nobody said yes
    with closing(sqlite3.connect(stack.state / "data" / "mlflow.db")) as connection:
        connection.execute(CONFLICT)
        stays_down(stack, lambda: data.migrate(asked.but(yes=True)), 1)
        connection.execute("DROP TABLE scheduler_leases")
    stays_down(stack, lambda: data.migrate(asked.but(yes=True)), 0)
    stays_down(stack, lambda: data.migrate(asked.but(check=True)), 0)


def test_a_restore_starts_no_server_of_a_stack_that_is_down(
    stack: StackUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = back_up(f"sqlite:///{stack.state}/data/mlflow.db", tmp_path / "sets")
    asked = Restore(stack="local", backup=str(backup.path))
    stays_down(stack, lambda: data.restore(asked.but(backup="/etc", yes=True)), 1)
    stays_down(stack, lambda: data.restore(asked), 1)  # nobody said yes
    with monkeypatch.context() as patch:
        patch.setattr(data, "put_back", lambda *_: 1)  # as after an error that no plan can see
        stays_down(stack, lambda: data.restore(asked.but(yes=True)), 1)
    stays_down(stack, lambda: data.restore(asked.but(yes=True)), 0)
