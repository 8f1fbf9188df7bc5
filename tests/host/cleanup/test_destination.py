"""Orphans are deleted where a mark says that the destination is this database's alone, and never a file store's."""

from __future__ import annotations

import json
import shutil
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from artifacts import open_store
from console import UserError
from database import ownership
from database.connection import connect
from tests.support.small import Small

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cleaned import World


def stray(small: Small, place: str = "7") -> str:
    """Put artifacts there that belong to nothing."""
    key = f"{place}/{uuid.uuid4().hex}/artifacts/x"
    small.write(str(small.root), key)
    return key


def state(small: Small) -> str:
    return state_of(small.uri, str(small.root))


def state_of(uri: str, destination: str) -> str:
    engine = connect(uri)
    try:
        with engine.connect() as connection:
            return ownership.read(connection, open_store(destination)).state
    finally:
        engine.dispose()


def test_orphans_are_counted_until_the_destination_is_claimed(small: Small) -> None:
    key = stray(small)
    report = small.clean()
    assert key in small.files()
    assert any("--claim" in note and "1 folder" in note for note in report.notes)
    assert small.clean(claim=True).deleted["orphan_artifacts"] == 1
    assert key not in small.files()
    again = stray(small)
    assert small.clean().deleted["orphan_artifacts"] == 1
    assert again not in small.files()


def test_a_second_server_in_the_same_root_keeps_all_its_artifacts(
    small: Small, empty_sqlite: Path, tmp_path: Path
) -> None:
    other = Small(empty_sqlite, tmp_path / "two", small.root)
    mine, theirs = small.experiment("mine"), other.experiment("theirs")
    small.run(mine)
    other.run(theirs)
    small.delete(small.run(mine))
    before = small.files()
    small.clean(only=("orphans",))
    assert small.files() == before
    other.clean(claim=True, only=("experiments",))
    assert state(other) == "ours"
    assert state(small) == "others"
    other.close()


@pytest.mark.parametrize("copied", ["beside", "with its folder"])
def test_a_copy_of_a_database_does_not_own_what_its_source_owns(
    small: Small, tmp_path: Path, copied: str
) -> None:
    small.run(small.experiment("e"))
    small.clean(claim=True)
    copy = Small(small.file, tmp_path / "staging", small.root if copied == "beside" else None)
    if copied != "beside":
        shutil.copytree(small.root, copy.root, dirs_exist_ok=True)
    later = small.run(small.experiment("later"))  # the source goes on
    if copied == "beside":
        copy.clean()
        assert any(later in name for name in small.files())
    assert state(copy) == "moved"
    assert state(small) == "ours"
    copy.clean(claim=True, only=("orphans",))
    assert state(copy) == "ours"
    assert state(small) == ("others" if copied == "beside" else "ours")
    copy.close()


def test_postgresql_and_s3_know_their_mark_and_a_copy_does_not(
    s3_world: World, request: pytest.FixtureRequest
) -> None:
    assert s3_world.cleanup("--yes", "--claim", "--only=orphans")["dry_run"] is False
    assert state_of(s3_world.uri, s3_world.destination) == "ours"
    s3_world.engine.dispose()
    postgres = request.getfixturevalue("postgres")
    name = s3_world.uri.rpartition("/")[2]
    postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    postgres.sql(f'CREATE DATABASE "{name}-staging" TEMPLATE "{name}"')
    assert state_of(postgres.uri(f"{name}-staging"), s3_world.destination) == "moved"
    postgres.sql(f'DROP DATABASE "{name}-staging" WITH (FORCE)')


def test_a_mark_of_another_is_not_replaced_without_somebody_at_the_terminal(
    local_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    local_world.cleanup("--yes", "--claim", "--only=orphans")
    local_world.sql(f"UPDATE {ownership.TABLE} SET version_num = 'another'")
    local_world.cleanup("--yes", "--claim", "--only=orphans", code=1)
    assert ownership.MARK in capsys.readouterr().err
    assert state_of(local_world.uri, local_world.destination) == "others"


def test_mlflow_reads_a_database_with_an_id_in_it(small: Small) -> None:
    from mlflow.store.db import utils

    from database.schema import read_schema

    mlflow_utils: Any = utils

    small.run(small.experiment("e"))
    small.clean(claim=True)
    engine = connect(small.uri)
    assert mlflow_utils._all_tables_exist(engine)
    assert read_schema(engine).state == "current"
    engine.dispose()
    mark = json.loads((small.root / ownership.MARK).read_text())
    assert mark["named"] == small.uri


def test_a_file_store_is_never_an_orphan(small: Small) -> None:
    """mlruns/ of a file store, with the same layout, in the same folder."""
    small.clean(claim=True)
    run, bare, model = uuid.uuid4().hex, uuid.uuid4().hex, f"m-{uuid.uuid4().hex}"
    small.write(
        str(small.root),
        *("3/meta.yaml", f"3/{run}/meta.yaml", f"3/{run}/metrics/loss", f"3/{run}/artifacts/model.pkl"),
        *(f"3/{bare}/artifacts/x", f"3/models/{model}/meta.yaml", f"3/models/{model}/artifacts/MLmodel"),
    )
    orphan = stray(small, "4")
    files = set(small.files())
    assert small.clean().deleted["orphan_artifacts"] == 1
    assert set(small.files()) == files - {orphan}


def test_orphans_are_left_for_as_long_as_the_age_of_a_schedule_says() -> None:
    from cleanup.schedule import with_grace

    assert with_grace(["--older-than=30d"]) == ["--older-than=30d", "--orphan-grace=30d"]
    assert with_grace(["--older-than", "30d", "--yes"]) == [
        "--older-than",
        "30d",
        "--yes",
        "--orphan-grace=30d",
    ]
    assert with_grace(["--older-than=1h"]) == ["--older-than=1h"]
    assert with_grace(["--older-than=30d", "--orphan-grace=2d"]) == ["--older-than=30d", "--orphan-grace=2d"]


def test_a_destination_that_is_not_there_is_refused(small: Small) -> None:
    run = small.run(small.experiment("e"))
    small.delete(run)
    shutil.move(small.root, small.root.with_name("elsewhere"))
    with pytest.raises(UserError, match="is not there"):
        small.clean()
    assert small.rows("SELECT run_uuid FROM runs") == [run]


def test_a_destination_that_holds_nothing_that_should_be_there_is_refused(small: Small) -> None:
    experiment = small.experiment("e")
    run = small.run(experiment)
    small.model(experiment, run)
    small.sql("UPDATE logged_models SET status = 2")
    small.delete(run)
    shutil.rmtree(small.root)
    small.root.mkdir()
    stray(small)
    with pytest.raises(UserError, match="holds nothing of"):
        small.clean()
    assert small.rows("SELECT run_uuid FROM runs") == [run]
    assert small.clean(claim=True).deleted["run"] == 1  # who says that it is the right one


def test_an_empty_folder_is_no_reason_when_nothing_needs_to_be_in_it(small: Small) -> None:
    run = small.run(small.experiment("e"))
    small.delete(run)
    shutil.rmtree(small.root)
    small.root.mkdir()
    assert small.clean().deleted["run"] == 1


def test_a_bucket_that_is_not_there_or_empty_is_refused(
    s3_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = s3_world.runs()
    refused = {"s3://no-such-bucket/x": "cannot be read", "s3://bucket/no/such/prefix": "is not there"}
    for place, reason in refused.items():
        s3_world.cleanup("--yes", f"--artifacts-destination={place}", code=1)
        assert reason in capsys.readouterr().err
    assert s3_world.runs() == runs


def test_the_mark_is_nobodys_artifact(small: Small) -> None:
    small.run(small.experiment("e"))
    small.clean(claim=True)
    assert not any("not in the layout" in note for note in small.clean().notes)
    assert [path.name for path in (small.root / ".mlflow-stacks").iterdir()] == ["owner.json"]


def settled(small: Small, *, alone: bool = False) -> str:
    """What `up` makes of the mark."""
    ownership.settle(small.uri, str(small.root), alone=alone)
    return state(small)


def test_up_marks_what_is_empty_or_its_stacks_own_and_leaves_the_rest_to_a_question(
    small: Small, empty_sqlite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settled(small) == "ours"
    assert settled(small) == "ours"  # at each up

    used = Small(empty_sqlite, tmp_path / "used")
    stray(used)
    assert settled(used) == "unmarked"
    assert "invoke cleanup --claim" in capsys.readouterr().err
    assert settled(used, alone=True) == "ours"
    used.close()


def test_two_stacks_on_one_destination_are_refused_at_up(
    small: Small, empty_sqlite: Path, tmp_path: Path
) -> None:
    settled(small)
    second = Small(empty_sqlite, tmp_path / "second", small.root)
    with pytest.raises(UserError, match="is another database's") as refused:
        settled(second)
    assert "--set s3_prefix=NAME" in str(refused.value)
    assert state(small) == "ours"
    second.close()


def test_a_copy_of_the_database_takes_no_destination_by_its_up(small: Small, tmp_path: Path) -> None:
    settled(small)
    copy = Small(small.file, tmp_path / "staging", small.root)
    assert settled(copy) == "moved"
    assert state(small) == "ours"
    copy.close()
