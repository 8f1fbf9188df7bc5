"""Backup sets are whole or absent; restore puts back what they hold, or changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backups import sets
from backups.backup import back_up
from backups.migrate import migrate
from backups.restore import restore
from console import UserError
from database.connection import connect
from database.dialect import maintenance_lock
from database.schema import prepare
from develop.scratch.servers import BINARIES
from tests.databases.content import read
from tests.support import old_databases
from tests.support.old_databases import contained

if TYPE_CHECKING:
    from collections.abc import Callable

    from develop.scratch.servers import Postgres

KINDS = ["sqlite", "postgresql"]


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Make a small artifact destination, old enough that nothing in it counts as just written."""
    folder = tmp_path / "artifacts"
    for number in range(20):
        path = folder / "1" / f"run{number}" / "artifacts" / "mödel.bin"
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(1000 + number))
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    shutil.copyfile(path, path.with_name("copy"))  # a file of its own: the original may be a hard link
    path.unlink()
    path.with_name("copy").unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restore_into_an_empty_place_brings_everything_back(
    kind: str,
    old_database: Callable[[str, str], str],
    new_uri: Callable[[str], str],
    artifacts: Path,
    tmp_path: Path,
) -> None:
    uri = old_database("3.15.1", kind)
    migrate(uri, tmp_path / "sets")
    key = tmp_path / "passphrase"
    key.write_text("secret")
    backup = back_up(uri, tmp_path / "sets", destination=str(artifacts), keys=[key])
    fresh, destination = new_uri(kind), tmp_path / "fresh"
    result = restore(fresh, backup.path, destination=str(destination), keys_to=tmp_path / "keys")
    assert result.schema.state == "current"
    assert content(destination) == content(artifacts)
    assert (tmp_path / "keys" / "passphrase").read_text() == "secret"
    assert read(fresh) == read(uri)
    assert result.as_json()["artifacts"]["objects"] == 20


def test_a_restore_over_a_postgresql_database_makes_it_what_it_was(
    old_database: Callable[[str, str], str], postgres: Postgres, tmp_path: Path
) -> None:
    uri = old_database("2.22.5", "postgresql")
    name = uri.rpartition("/")[2]
    before = postgres.dump(name)
    backup = back_up(uri, tmp_path / "sets")
    migrate(uri, tmp_path / "sets")
    assert postgres.dump(name) != before
    restore(uri, backup.path)
    assert postgres.dump(name) == before


@pytest.mark.parametrize("version", ["2.9.2", "3.15.1"])
def test_a_sqlite_backup_restores_into_postgresql(
    version: str, old_database: Callable[[str, str], str], new_uri: Callable[[str], str], tmp_path: Path
) -> None:
    uri = old_database(version, "sqlite")
    backup = back_up(uri, tmp_path / "sets")
    target = new_uri("postgresql")
    prepare(target)
    assert restore(target, backup.path).schema.state == "current"
    migrate(uri, tmp_path / "sets")
    assert read(target) == read(uri)

    from mlflow import MlflowClient

    experiment = MlflowClient(target).create_experiment("after")  # its sequence goes on where SQLite stopped
    assert int(experiment) > max(int(key) for key in read(uri)["experiments"])


def test_a_postgresql_backup_does_not_become_a_sqlite_file(
    old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    backup = back_up(old_database("3.15.1", "postgresql"), tmp_path / "sets")
    with pytest.raises(UserError, match="cannot become a SQLite file"):
        restore(f"sqlite:///{tmp_path}/x.db", backup.path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_backup_links_what_the_last_one_has(
    kind: str, old_database: Callable[[str, str], str], artifacts: Path, tmp_path: Path
) -> None:
    uri = old_database("3.15.1", kind)
    first = back_up(uri, tmp_path / "sets", destination=str(artifacts))
    changed = artifacts / "1" / "run3" / "artifacts" / "mödel.bin"
    changed.write_bytes(b"x" * changed.stat().st_size)
    second = back_up(uri, tmp_path / "sets", destination=str(artifacts))
    assert first.manifest["artifacts"]["linked"] == 0
    assert second.manifest["artifacts"]["linked"] == 19
    assert content(second.path / "artifacts") == content(artifacts)
    if kind == "postgresql":
        assert (first.path / "database.dump").samefile(second.path / "database.dump")
        with connect(uri).begin() as connection:
            connection.exec_driver_sql("UPDATE experiments SET name = 'renamed' WHERE name = 'one'")
        third = back_up(uri, tmp_path / "sets", destination=str(artifacts))
        assert not (first.path / "database.dump").samefile(third.path / "database.dump")
    sets.verify(second)


def test_old_sets_are_pruned_and_the_last_good_one_stays(
    old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    uri, folder = old_database("3.15.1", "sqlite"), tmp_path / "sets"
    made = [back_up(uri, folder, keep=None) for _ in range(3)]
    other = back_up(old_database("3.15.1", "sqlite"), folder)
    (folder / "20200101T000000Z.partial").mkdir()
    (made[2].path / "database.sqlite").unlink()  # no good any more: it must not count as kept
    last = back_up(uri, folder, keep=2)
    assert not (folder / "20200101T000000Z.partial").exists()
    paths = {backup.path for backup in sets.list_sets(folder)[0]}
    assert paths == {made[1].path, made[2].path, last.path, other.path}


def test_a_database_that_was_emptied_prunes_no_set_of_its_better_days(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database, folder = tmp_path / "mlflow.db", tmp_path / "sets"
    uri = old_databases.sqlite_database("3.15.1", database)
    good = back_up(uri, folder, keep=1)
    database.write_bytes(b"")
    empty = back_up(uri, folder, keep=1)
    assert {kept.path for kept in sets.list_sets(folder)[0]} == {good.path, empty.path}
    assert "nothing is pruned: the database holds no tables of MLflow" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_set_is_refused_before_anything_is_touched(
    kind: str,
    old_database: Callable[[str, str], str],
    dump: Callable[[str], bytes],
    artifacts: Path,
    tmp_path: Path,
) -> None:
    uri = old_database("3.15.1", kind)
    good = back_up(uri, tmp_path / "sets", destination=str(artifacts))
    before, files, name = dump(uri), content(artifacts), good.database["file"]

    def damaged(change: Callable[[Path], object]) -> Path:
        path = tmp_path / "damaged"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(good.path, path)
        change(path)
        return path

    def newer(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, "format": 4}))

    def edited(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["database"]["rows"]["runs"] = 1
        (path / "manifest.json").write_text(json.dumps(manifest))

    artifact = Path("artifacts") / "1" / "run7" / "artifacts" / "mödel.bin"
    cases: list[tuple[Callable[[Path], object], str]] = [
        (lambda p: os.truncate(p / name, 5000), f"{name} has 5000 of"),
        (lambda p: flip_byte(p / name), f"SHA-256 of {name} does not fit"),
        (lambda p: flip_byte(p / artifact), "SHA-256 of artifacts/1/run7/artifacts/mödel.bin does not fit"),
        (lambda p: (p / artifact).unlink(), "run7/artifacts/mödel.bin is missing"),
        (newer, "has format 4; this mlflow-stacks reads up to 3"),
        (edited, "its checksum does not fit"),
        (lambda p: (p / "manifest.json").write_text("{"), "cannot read the manifest"),
        (lambda p: (p / "manifest.json").unlink(), "is not a backup"),
        (shutil.rmtree, "no backup at"),
    ]
    for change, message in cases:
        path = damaged(change)
        with pytest.raises(UserError, match=message):
            restore(uri, path, destination=str(artifacts))
        assert dump(uri) == before
        assert content(artifacts) == files


@pytest.mark.parametrize("kind", KINDS)
def test_two_at_once_on_one_database_do_not_meet(
    kind: str, old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    uri = old_database("3.15.1", kind)
    with maintenance_lock(connect(uri), "cleanup"):
        for verb in (lambda: back_up(uri, tmp_path / "sets"), lambda: migrate(uri, tmp_path / "sets")):
            with pytest.raises(UserError, match="held by cleanup"):
                verb()
    assert not (tmp_path / "sets").exists()


def test_a_restore_that_cannot_be_loaded_leaves_postgresql_as_it_was(
    old_database: Callable[[str, str], str],
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = old_database("3.15.1", "postgresql")
    name = uri.rpartition("/")[2]
    before = postgres.dump(name)
    backup = back_up(uri, tmp_path / "sets")
    os.truncate(backup.path / "database.dump", backup.database["bytes"] // 2)
    monkeypatch.setattr(sets, "verify", lambda _: None)  # as if the dump had been bad from the start
    with pytest.raises(UserError, match="pg_restore failed"):
        restore(uri, backup.path)
    assert postgres.dump(name) == before
    backup.database["rows"]["runs"] += 1
    again = back_up(uri, tmp_path / "more")
    again.database["rows"]["runs"] += 1  # a count that cannot be met: nothing is committed
    monkeypatch.setattr(sets, "open_set", lambda _: again)
    with pytest.raises(UserError, match="table runs does not have its 7 rows"):
        restore(uri, again.path)
    assert postgres.dump(name) == before


def test_a_sqlite_database_in_use_is_not_replaced(
    old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    uri = old_database("3.15.1", "sqlite")
    backup = back_up(uri, tmp_path / "sets")
    user = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    user.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match="is in use by"):
        restore(uri, backup.path)
    user.close()
    restore(uri, backup.path)


def test_what_the_restore_does_not_know_is_left(
    old_database: Callable[[str, str], str], artifacts: Path, tmp_path: Path
) -> None:
    uri = old_database("3.15.1", "sqlite")
    backup = back_up(uri, tmp_path / "sets", destination=str(artifacts))
    wanted = content(artifacts)
    (artifacts / "1" / "new.txt").write_text("new")
    (artifacts / "1" / "run1" / "artifacts" / "mödel.bin").write_text("changed")
    (artifacts / "1" / "run2" / "artifacts" / "mödel.bin").unlink()
    result = restore(uri, backup.path, destination=str(artifacts))
    assert result.artifacts == {
        "objects": 20,
        "bytes": backup.manifest["artifacts"]["bytes"],
        "written": 2,
        "moved": 0,
        "left": 1,
    }
    assert content(artifacts) == {**wanted, "1/new.txt": b"new"}


def test_every_older_database_backs_up_and_restores(
    old_database: Callable[[str, str], str], new_uri: Callable[[str], str], tmp_path: Path, postgres: Postgres
) -> None:
    for version in old_databases.VERSIONS:
        uri = old_database(version, "postgresql")
        backup = back_up(uri, tmp_path / "sets")
        fresh = new_uri("postgresql")
        restore(fresh, backup.path)
        assert postgres.dump(fresh.rpartition("/")[2]) == postgres.dump(uri.rpartition("/")[2])
        assert restore(fresh, backup.path, to_head=True).schema.state == "current"
        assert contained(old_databases.expected(version, "postgresql"), read(fresh)) == []


def test_a_sqlite_set_of_an_older_mlflow_becomes_a_current_database(
    old_database: Callable[[str, str], str], new_uri: Callable[[str], str], tmp_path: Path
) -> None:
    backup = back_up(old_database("2.9.2", "sqlite"), tmp_path / "sets")
    fresh = new_uri("sqlite")
    assert restore(fresh, backup.path, to_head=True).schema.state == "current"
    assert contained(old_databases.expected("2.9.2", "sqlite"), read(fresh)) == []


def test_an_ordinary_role_that_owns_its_database_is_enough(
    old_database: Callable[[str, str], str], postgres: Postgres, tmp_path: Path
) -> None:
    laptop = back_up(old_database("3.10.1", "sqlite"), tmp_path / "sets")
    postgres.sql("CREATE ROLE mlflow LOGIN PASSWORD 's3cret-pass'")
    postgres.sql("CREATE DATABASE owned OWNER mlflow")
    uri = postgres.uri("owned").replace("tester", "mlflow")
    prepare(uri)
    assert restore(uri, laptop.path).schema.state == "current"
    first = back_up(uri, tmp_path / "sets")
    before = read(uri)
    again = back_up(uri, tmp_path / "sets")
    assert (first.path / "database.dump").samefile(again.path / "database.dump")
    restore(uri, first.path)
    assert read(uri) == before  # the text of CHECK constraints changes once: PostgreSQL writes them so
    with connect(uri).begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('6f8d9c3b2a1e')")
    foreign = back_up(old_database("3.15.1", "postgresql"), tmp_path / "sets")  # tables of another owner
    assert restore(uri, foreign.path).schema.state == "behind"
    assert migrate(uri, tmp_path / "sets").after.state == "current"


def test_the_programs_may_run_where_the_server_is(
    old_database: Callable[[str, str], str], postgres: Postgres, tmp_path: Path
) -> None:
    uri = old_database("3.15.1", "postgresql")
    command = f"env PATH={BINARIES} PGHOST=127.0.0.1 PGPORT={postgres.port}"  # as `docker compose exec` would
    before = postgres.dump(uri.rpartition("/")[2])
    backup = back_up(uri, tmp_path / "sets", pg_command=command)
    restore(uri, backup.path, pg_command=command)
    assert postgres.dump(uri.rpartition("/")[2]) == before
    with pytest.raises(UserError, match="pg_dump failed"):
        back_up(uri, tmp_path / "other", pg_command=f"{command.replace(str(postgres.port), '1')}")
    with pytest.raises(UserError, match="cannot run no-such-program"):
        back_up(uri, tmp_path / "other", pg_command="no-such-program")
    assert sets.list_sets(tmp_path / "other") == ([], [])


def test_artifacts_outside_the_destination_are_named(
    new_uri: Callable[[str], str], artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    uri = new_uri("sqlite")
    prepare(uri)
    client = MlflowClient(uri)
    client.create_experiment("served", "mlflow-artifacts:/7")
    client.create_experiment("inside", (artifacts / "with space").as_uri())
    client.create_experiment("outside", "file:///somewhere/else/8")
    with connect(uri).begin() as connection:
        connection.exec_driver_sql("DELETE FROM experiments WHERE name = 'Default'")
    backup = back_up(uri, tmp_path / "sets", destination=str(artifacts))
    assert backup.manifest["artifacts"]["outside"] == {"experiments": 1}
    assert (
        "are not in this backup: those of 1 experiments, such as file:///somewhere/else/8\n"
        in capsys.readouterr().err
    )
