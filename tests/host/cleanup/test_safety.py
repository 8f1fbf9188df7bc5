"""What a cleanup never does: touch what is not its own, guess, or change anything after bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import inspect

from artifacts import open_store
from artifacts.s3 import s3_client
from develop.scratch.ports import free_port
from develop.scratch.stock import ftp_server
from tests.support.many import add_runs, put
from tests.support.world import PURGED_RUNS, dangling, owner_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from develop.scratch.servers import Postgres
    from tests.support.cleaned import World

ROOT = Path(__file__).parents[3]


def unchanged(world: World, keys: set[str], runs: set[str]) -> None:
    assert world.objects() == keys
    assert world.runs() == runs
    world.assert_whole()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--older-than=1.5d"], 2, "not '1.5d'"),
        (["--only=runs,dragons"], 2, "not 'dragons'"),
        (["--only=traces"], 2, "say how old"),
        (["--experiment-ids=two"], 2, "not 'two'"),
        (["--run-ids=" + "0" * 32, "--only=models"], 2, "--run-ids names runs"),
        (["--run-ids=" + "0" * 32], 1, "there is no run with this id"),
        (["--experiment-ids=99999"], 1, "there is no experiment with this id"),
        (["--artifacts-destination=mlflow-artifacts:/"], 1, "is a tracking server, not a store"),
        (["--backend-store-uri=file:///tmp/x"], 1, "not a database URI"),
        (["--backend-store-uri=sqlite:////nowhere/x.db"], 1, "no SQLite database"),
    ],
)
def test_bad_input_gets_a_message_and_changes_nothing(
    local_world: World, flags: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, runs = local_world.objects(), local_world.runs()
    local_world.cleanup("--yes", *flags, code=code)
    error = capsys.readouterr().err
    assert "error: " in error
    assert message in error
    assert "Traceback" not in error
    unchanged(local_world, keys, runs)


def test_one_live_id_among_deleted_ones_stops_everything(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, runs = world.objects(), world.runs()
    ids = f"{world.ids['plain-deleted']},{world.ids['parent']}"
    world.cleanup("--yes", f"--run-ids={ids}", code=1)
    assert "is not deleted" in capsys.readouterr().err
    unchanged(world, keys, runs)


def test_without_a_terminal_and_without_yes_nothing_changes(world: World) -> None:
    keys, runs = world.objects(), world.runs()
    assert world.cleanup()["dry_run"]
    unchanged(world, keys, runs)


def test_a_database_that_is_no_mlflow_database_is_refused(
    local_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE runs (name TEXT)")
        other.execute("INSERT INTO runs VALUES ('marathon')")
    local_world.cleanup("--yes", f"--backend-store-uri=sqlite:///{tmp_path}/other.db", code=1)
    assert "not an MLflow database" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("empty", "no MLflow database yet"),
        ("other", "not an MLflow database"),
        ("missing", "no such database"),
        ("unreachable", "does not answer"),
    ],
)
def test_a_postgresql_that_is_no_mlflow_database_is_refused(
    database: str,
    message: str,
    s3_world: World,
    new_database: Callable[[], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys, runs = s3_world.objects(), s3_world.runs()
    uri = new_database()
    if database == "other":
        replace(s3_world, uri=uri).sql("CREATE TABLE runs AS SELECT 'marathon' AS name")
    elif database == "missing":
        uri += "-missing"
    elif database == "unreachable":
        uri = re.sub(r":\d+/", f":{free_port()}/", uri)
    s3_world.cleanup("--yes", f"--backend-store-uri={uri}", code=1)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    unchanged(s3_world, keys, runs)


@pytest.mark.parametrize("rights", ["reads", "misses one table", "a file that may only be read"])
def test_a_role_that_may_not_delete_is_told_so_and_no_object_is_deleted(
    rights: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    if rights == "a file that may only be read":
        world: World = request.getfixturevalue("local_world")
        uri = world.uri.replace("sqlite:///", "sqlite:///file:") + "?mode=ro&uri=true"
    else:
        world = request.getfixturevalue("s3_world")
        postgres: Postgres = request.getfixturevalue("postgres")
        name = world.uri.rpartition("/")[2]
        role = f"limited_{name}"
        grants = f"GRANT pg_read_all_data TO {role}"
        if rights == "misses one table":
            grants = (
                f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; REVOKE DELETE ON params FROM {role}"
            )
        postgres.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'limited'; {grants}", name)
        uri = f"postgresql+psycopg2://{role}:limited@127.0.0.1:{postgres.port}/{name}"
    keys, runs = world.objects(), world.runs()
    world.cleanup("--yes", f"--backend-store-uri={uri}", code=1)
    assert "may not delete" in capsys.readouterr().err
    unchanged(world, keys, runs)


def test_run_ids_delete_exactly_those_runs(world: World) -> None:
    before, experiments = world.runs(), world.rows("SELECT experiment_id FROM experiments")
    answer = world.cleanup("--yes", f"--run-ids={world.ids['plain-deleted']}")
    assert world.runs() == before - {"plain-deleted"}
    assert world.rows("SELECT experiment_id FROM experiments") == experiments
    assert answer["deleted"]["runs"] == 1
    assert answer["deleted"]["logged_models"] == answer["deleted"]["orphan_artifacts"] == 0
    world.assert_whole()


def test_experiment_ids_delete_exactly_those_experiments_with_what_is_in_them(world: World) -> None:
    before = world.runs()
    world.cleanup("--yes", f"--experiment-ids={world.ids['gone']}")
    assert world.runs() == before - {"gone-run", "gone-child"}
    assert int(world.ids["gone"]) not in world.rows("SELECT experiment_id FROM experiments")
    assert not any(key.split("/")[-4:] and f"/{world.ids['gone']}/" in f"/{key}" for key in world.objects())
    world.assert_whole()


def test_an_age_keeps_what_was_deleted_lately(world: World) -> None:
    before = world.runs()
    assert world.cleanup("--yes", "--older-than=1d")["deleted"]["runs"] == 0
    assert world.runs() == before
    world.sql("UPDATE runs SET deleted_time = 1 WHERE run_uuid = :run", run=world.ids["plain-deleted"])
    assert world.cleanup("--yes", "--older-than=1d")["deleted"]["runs"] == 1
    assert world.runs() == before - {"plain-deleted"}
    world.assert_whole()


def test_runs_without_a_deletion_time_are_counted_and_go_only_when_asked_for(world: World) -> None:
    run = world.ids["plain-deleted"]
    world.sql("UPDATE runs SET deleted_time = NULL WHERE run_uuid = :run", run=run)
    assert world.cleanup("--yes")["undated"] == 1
    assert "plain-deleted" in world.runs()
    world.cleanup("--yes", "--include-undated")
    assert "plain-deleted" not in world.runs()
    world.assert_whole()


def test_a_restored_run_keeps_its_deleted_experiment_and_is_reported(world: World) -> None:
    answer = world.cleanup("--yes")
    assert "survivor" in world.runs()
    reasons = {item["id"]: item["reason"] for item in answer["skipped"] if item["kind"] == "experiment"}
    assert "is not deleted" in reasons[world.ids["kept"]]


def test_what_a_registered_version_needs_stays_unless_forced(world: World) -> None:
    model = world.ids["model-registered"]
    needed = {key for key in world.objects() if model in key or world.ids["registered-run"] in key}
    world.cleanup("--yes")
    assert needed <= world.objects()
    assert model in world.rows("SELECT model_id FROM logged_models")
    answer = world.cleanup("--yes", "--force-registered")
    assert answer["deleted"]["runs"] == 2
    assert answer["deleted"]["logged_models"] == 1
    assert not needed & world.objects()
    assert dangling(world.engine) == {}


STRANGE = [
    "s3://another-bucket/1/{run}/artifacts",
    "{destination}/../elsewhere/{run}/artifacts",
    "{destination}/1/{other}/../{run}/artifacts",
    "{destination}-sibling/1/{run}/artifacts",
    "{destination}/1/{other}/artifacts",
    "{destination}",
    "/etc",
    "relative/{run}/artifacts",
    "mlflow-artifacts:/../{run}/artifacts",
    "mlflow-artifacts:/1/%2e%2e/{run}/artifacts",
    "https://example.com/{run}/artifacts",
    "dbfs:/x/{run}/artifacts",
    "{destination}/1/{other}/artifacts/{run}/artifacts",
    "{destination}/1/{run}/artifacts?versionId=1",
]


def test_nothing_is_deleted_from_a_strange_artifact_location(world: World) -> None:
    other = world.ids["parent"]
    uris = dict(zip(add_runs(world, len(STRANGE), world.ids["two"]), STRANGE, strict=True))
    places = [f"{world.destination}-sibling", f"{world.destination.rpartition('/')[0]}/elsewhere"]
    if world.destination.startswith("s3://"):
        s3_client().create_bucket(Bucket="another-bucket")
        places.append("s3://another-bucket")
    kept = [f"1/{run}/artifacts/keep" for run in uris] + [f"{run}/artifacts/keep" for run in uris]
    for place in places:
        put(place, kept)
    for run, template in uris.items():
        uri = template.format(destination=world.destination, run=run, other=other)
        world.sql("UPDATE runs SET artifact_uri = :uri WHERE run_uuid = :run", uri=uri, run=run)
    before = world.objects()
    answer = world.cleanup("--yes", "--only=runs")
    skipped = {item["id"] for item in answer["skipped"]}
    assert [uri for run, uri in uris.items() if run not in skipped] == []
    assert set(uris) <= set(world.rows("SELECT run_uuid FROM runs"))
    for place in places:
        assert {item.key for item in open_store(place).list()} == set(kept)
    gone = {world.ids[name] for name in PURGED_RUNS}
    gone |= {entity for name, entity in world.ids.items() if name in {"team-deleted", "team-gone"}}
    assert {key for key in before - world.objects() if not gone & set(key.split("/"))} == set()
    world.assert_whole()


def test_a_store_that_cannot_delete_keeps_its_rows(
    local_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow's client for FTP lists and uploads, and has no way to delete."""
    keys, runs = local_world.objects(), local_world.runs()
    with ftp_server(Path(local_world.destination)) as uri:
        there = {item.key for item in open_store(uri).list()}
        answer = local_world.cleanup("--yes", "--orphan-grace=0m", f"--artifacts-destination={uri}", code=1)
    assert there == keys
    assert "Not implemented yet" in next(
        item["reason"] for item in answer["skipped"] if item["id"] == local_world.ids["plain-deleted"]
    )
    assert local_world.runs() == runs
    assert local_world.objects() == keys
    assert "secret-key" not in json.dumps(answer) + capsys.readouterr().err
    local_world.assert_whole()


def test_a_location_behind_a_symbolic_link_is_not_followed(local_world: World, tmp_path: Path) -> None:
    run = local_world.ids["plain-deleted"]
    folder = next(Path(local_world.destination).glob(f"*/{run}"))
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    answer = local_world.cleanup("--yes", "--only=runs", code=1)
    assert {item["id"] for item in answer["skipped"]} >= {run}
    assert any((tmp_path / "moved").rglob("b.bin"))


def test_a_reference_that_nobody_knows_stops_the_plan(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, runs = world.objects(), world.runs()
    world.sql("CREATE TABLE notes (id INTEGER PRIMARY KEY, run_uuid VARCHAR(32))")
    world.cleanup("--yes", code=1)
    assert "notes.run_uuid" in capsys.readouterr().err
    assert world.objects() == keys
    assert world.runs() == runs
    world.cleanup("--yes", "--ignore-reference=notes.run_uuid")
    assert world.runs() < runs


def test_old_traces_go_only_when_asked_for(world: World) -> None:
    world.sql(
        "UPDATE trace_info SET timestamp_ms = 1 WHERE request_id = :trace", trace=world.ids["live-trace-2"]
    )
    world.cleanup("--yes", "--older-than=1d")
    assert world.ids["live-trace-2"] in world.rows("SELECT request_id FROM trace_info")
    answer = world.cleanup("--yes", "--only=traces", "--older-than=1d")
    assert answer["deleted"]["traces"] == 1
    assert world.ids["live-trace-2"] not in world.rows("SELECT request_id FROM trace_info")
    assert world.ids["live-trace"] in world.rows("SELECT request_id FROM trace_info")
    assert dangling(world.engine) == {}


def test_orphaned_folders_go_when_old_and_in_layout_and_everything_else_stays(local_world: World) -> None:
    world, root = local_world, Path(local_world.destination)
    old, young = uuid.uuid4().hex, uuid.uuid4().hex
    strays = {
        f"7/{old}/artifacts/x": True,
        f"1/models/m-{old}/artifacts/x": True,
        f"1/traces/tr-{old}/artifacts/traces.json": True,
        f"workspaces/team/7/{old}/artifacts/x": True,
        f"7/{young}/artifacts/x": False,
        f"seven/{old}/artifacts/x": False,
        f"1/{old}/x": False,
        "1/README": False,
        "backup.tar": False,
    }
    for key in strays:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_text("x")
        if young not in key:
            os.utime(root / key, (1_000_000_000, 1_000_000_000))
    planned = world.cleanup("--dry-run", "--only=orphans", "--claim")
    answer = world.cleanup("--yes", "--only=orphans", "--claim")
    assert planned["deleted"]["orphan_artifacts"] == answer["deleted"]["orphan_artifacts"] == 4
    assert {key for key in strays if not (root / key).exists()} == {
        key for key, goes in strays.items() if goes
    }
    assert any("not in the layout" in note for note in answer["notes"])
    assert any("younger than 1d" in note for note in answer["notes"])
    world.assert_whole()


def test_what_mlflow_gc_left_behind_is_found(world: World) -> None:
    env = os.environ | {"MLFLOW_TRACKING_URI": world.uri, "MLFLOW_ENABLE_WORKSPACES": "true"}
    if world.workspaces == [None]:
        env.pop("MLFLOW_ENABLE_WORKSPACES")
    # gc reaches proxied artifacts only through a running server; without one it deletes rows and goes on
    world.sql(
        "UPDATE runs SET artifact_uri = replace(artifact_uri, 'mlflow-artifacts:', :root)",
        root=world.destination,
    )
    world.sql(
        "UPDATE logged_models SET artifact_location = replace(artifact_location, 'mlflow-artifacts:', :root)",
        root=world.destination,
    )
    argv = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", world.uri]
    argv += ["--artifacts-destination", world.destination]
    argv += ["--all-workspaces"] if world.workspaces != [None] else []
    answer = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, cwd=ROOT)
    left = dangling(world.engine)
    owners = owner_ids(world.engine)
    strays = sum(not owners & set(key.split("/")) for key in world.objects())
    print("mlflow gc left behind:", left, f"and {strays} objects", answer.stdout[-500:], answer.stderr[-500:])
    assert left
    world.cleanup("--yes", "--orphan-grace=0m", "--claim")
    assert dangling(world.engine) == {}
    world.assert_owned()


def test_a_missing_index_is_there_for_the_time_of_the_cleanup_only(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cleanup.indexes.SMALL", 0)
    monkeypatch.setattr("cleanup.indexes.WORTH_IT", 0)
    before = {name: set(map(str, indexes)) for name, indexes in all_indexes(world).items()}
    world.sql("CREATE INDEX mlflow_stacks_cleanup_left_by_a_kill ON runs (name)")
    world.cleanup("--yes")
    assert "building an index on logged_model_metrics.run_id" in capsys.readouterr().err
    assert {name: set(map(str, indexes)) for name, indexes in all_indexes(world).items()} == before
    world.assert_whole()


def all_indexes(world: World) -> dict[str, list[object]]:
    inspector = inspect(world.engine)
    return {name: list(inspector.get_indexes(name)) for name in inspector.get_table_names()}
