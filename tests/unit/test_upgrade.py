"""The parts of `invoke upgrade` that touch nothing: which version, which backup set, what the plan says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backups.sets import BackupSet
from console import UserError
from images import catalogue, lock
from stacks.state import environments
from stacks.state.journal import Journal
from stacks.state.opening import with_version
from stacks.verbs.upgrade import Plan, choose, lost
from tests.support.deployments import deployment

SOURCE, IDENTITY = "postgresql+psycopg2://mlflow@127.0.0.1:5557/mlflow", {"system": "7", "database": 5}
FOUND: dict[str, Any] = {
    "state": "ahead",
    "revision": "newer",
    "head": "old",
    "known": ["older", "old"],
    "source": SOURCE,
    "identity": IDENTITY,
    "rows": {"runs": 12, "experiments": 2, "metrics": 50},
}


def backup_set(folder: Path, created: str, revision: str = "old", **other: Any) -> BackupSet:
    """A set with a dump of four bytes."""
    path = folder / created
    path.mkdir()
    (path / "database.dump").write_bytes(b"dump")
    database = {
        "kind": "postgresql",
        "source": SOURCE,
        "identity": IDENTITY,
        "revision": revision,
        "file": "database.dump",
        "bytes": 4,
        "rows": {"runs": 9, "experiments": 2},
        **other,
    }
    manifest = {"created": created, "purpose": "backup", "mlflow_version": "3.15.1", "artifacts": None}
    return BackupSet(path, {**manifest, "database": database})


def test_the_newest_set_that_a_version_knows_is_chosen(tmp_path: Path) -> None:
    sets = [backup_set(tmp_path, "1", "older"), backup_set(tmp_path, "2", "old")]
    assert choose([*sets, backup_set(tmp_path, "3", "newer")], FOUND) == sets[1]


@pytest.mark.parametrize(
    "other",
    [
        {"revision": "newer"},
        {"source": "postgresql+psycopg2://mlflow@127.0.0.1:6000/mlflow"},
        {"identity": {"system": "8", "database": 5}},
        {"bytes": 5},
    ],
)
def test_no_set_of_another_schema_or_database_and_none_that_is_damaged_is_chosen(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    assert choose([backup_set(tmp_path, "1", **other)], FOUND) is None


def test_what_a_set_lacks_is_counted(tmp_path: Path) -> None:
    assert lost(FOUND["rows"], backup_set(tmp_path, "1", "old")) == ["runs: 12 become 9, 3 fewer"]


def test_a_plan_backwards_names_the_set_and_what_is_lost(tmp_path: Path) -> None:
    saved = backup_set(tmp_path, "2026-11-23T20:21:51Z", "old")
    text = "\n".join(Plan("local", "3.17.2", "3.15.1", tmp_path, "restore", FOUND, saved).lines())
    assert "MLflow 3.17.2 becomes 3.15.1" in text
    assert "goes back to the backup of 2026-11-23T20:21:51Z" in text
    assert "runs: 12 become 9, 3 fewer" in text
    assert "kept in the first backup alone" in text


def test_a_plan_forwards_names_every_revision(tmp_path: Path) -> None:
    schema = {**FOUND, "head": "b2", "pending": [{"revision": "b2", "title": "add a table"}]}
    text = "\n".join(Plan("local", "3.15.1", "3.17.2", tmp_path, "migrate", schema).lines())
    assert "1 revision forward, to b2" in text
    assert "b2  add a table" in text


def test_a_stack_without_data_needs_no_backup(tmp_path: Path) -> None:
    assert not any("backup" in line for line in Plan("gateway", "3.15.1", "3.17.2", tmp_path).lines())


@pytest.mark.parametrize(
    ("step", "action", "changed", "served"),
    [
        ("backup", "migrate", False, False),
        ("migrate", "migrate", True, False),
        ("restore", "restore", True, False),
        ("smoke test", "migrate", True, True),
        ("start", "none", False, True),
    ],
)
def test_the_way_back_restores_only_data_that_may_have_changed(
    step: str, action: Any, changed: bool, served: bool
) -> None:
    journal = Journal("3.15.1", "3.17.2", "backups", step, action)
    assert (journal.data_changed, journal.served) == (changed, served)


@pytest.mark.parametrize(
    ("version", "services", "reason"),
    [
        ("latest", (), "is no version of MLflow"),
        ("3.17", (), "is no version of MLflow"),
        ("2.22.5", (), "too old to run here"),
        ("3.8.1", ("mlflow", "gateway-sync"), "too old for the service 'gateway-sync'"),
        ("3.5.1", ("mlflow", "gateway"), "too old for the service 'gateway'"),
    ],
)
def test_a_version_that_cannot_run_is_refused(version: str, services: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        environments.check(version, services)


def test_versions_that_can_run_are_taken() -> None:
    for version in ("3.3.2", "3.5.1", "3.18.0rc1", environments.pinned()):
        environments.check(version, ("mlflow",))
    environments.check("3.6.0", ("mlflow", "gateway"))
    environments.check("3.9.0", ("mlflow", "gateway-sync"))


def test_a_stack_goes_on_with_its_version_and_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    environments.settle(deployment("quickstart", version="3.15.1"))
    assert "stays on MLflow 3.15.1" in capsys.readouterr().err
    environments.settle(deployment("quickstart"))
    assert capsys.readouterr().err == ""


def test_the_setting_does_not_change_the_version_of_a_stack_that_is_there() -> None:
    with pytest.raises(UserError, match="the setting 'mlflow_version' asks for") as refused:
        environments.settle(deployment("quickstart", "mlflow_version=3.17.2", version="3.15.1"))
    assert "invoke upgrade --to=3.17.2 --stack=quickstart" in str(refused.value)


def test_another_version_runs_in_an_environment_of_its_own() -> None:
    installed = with_version(deployment("quickstart"), environments.installed())
    assert installed.mlflow_python == sys.executable
    other = with_version(installed, "3.15.1")
    assert other.mlflow_python == "/srv/state/quickstart/mlflow/3.15.1/bin/python"
    assert other.python == installed.python


def test_an_old_version_is_installed_with_what_it_imports_with() -> None:
    assert lock.limits("3.5.1") == ("sqlalchemy<2.1", "aiohttp<4", "huey>=2.5,<3")
    assert lock.limits("3.8.1") == ("sqlalchemy<2.1", "aiohttp<4", "uv")
    assert lock.limits("3.10.1") == ("sqlalchemy<2.1", "aiohttp<4")
    assert lock.limits("3.11.0") == ("sqlalchemy<2.1",)
    assert lock.limits("3.15.1") == ()


def test_a_lock_of_another_version_is_renewed_when_the_image_asks_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def resolve(_: Path, *arguments: str, local: bool) -> subprocess.CompletedProcess[str]:
        target = Path(arguments[arguments.index("--output-file") + 1])
        asked.append(target.read_text())
        target.write_text("mlflow==3.15.1\ncronsim==2.8\n")
        return subprocess.CompletedProcess([], local)  # 0: it is for a container

    monkeypatch.setattr(lock, "uv", resolve)
    (tmp_path / "3.15.1.txt").write_text("mlflow==3.15.1\n")  # of an earlier version of this project

    path = lock.for_version("3.15.1", tmp_path, local=False)
    again = lock.for_version("3.15.1", tmp_path, local=False)

    assert asked == ["mlflow==3.15.1\n"], "its versions are kept, and it is resolved once"
    assert path == again
    assert "cronsim==2.8" in path.read_text()


def test_without_a_network_the_lock_that_is_there_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = subprocess.CompletedProcess([], 2, stderr="the index does not answer")
    monkeypatch.setattr(lock, "uv", lambda *_, **__: refused)
    path = tmp_path / "3.15.1.txt"
    path.write_text("mlflow==3.15.1\n")
    assert lock.for_version("3.15.1", tmp_path, local=False) == path
    assert path.read_text() == "mlflow==3.15.1\n"
    with pytest.raises(UserError, match=r"cannot resolve what MLflow 3\.14\.0 needs"):
        lock.for_version("3.14.0", tmp_path, local=False)


def test_an_image_of_another_version_is_one_of_its_lock(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    text = (catalogue.FOLDER / "mlflow" / "requirements.txt").read_text()
    (tmp_path / "lock.txt").write_text(text.replace(f"mlflow=={environments.pinned()}", "mlflow==3.15.1"))
    what = catalogue.image("mlflow", tmp_path / "lock.txt")
    assert what.version == "3.15.1"
    catalogue.assemble(what, other)
    catalogue.assemble(catalogue.image("mlflow"), own)
    assert (other / "requirements.txt").read_text() == (tmp_path / "lock.txt").read_text()
    assert catalogue.content_hash(own) != catalogue.content_hash(other)
