"""Rows are deleted from MLflow's own tables alone, and proven deletable before any artifact goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.small import Small, reasons

if TYPE_CHECKING:
    from tests.support.cleaned import World


@pytest.mark.parametrize("action", ["", "ON DELETE CASCADE"])
def test_a_row_of_a_table_of_others_keeps_the_run_it_refers_to(local_world: World, action: str) -> None:
    world = local_world
    dead, free = world.ids["plain-deleted"], world.ids["child-deleted"]
    world.sql(
        f"CREATE TABLE pins (pin INTEGER PRIMARY KEY, run_uuid VARCHAR(32) REFERENCES runs (run_uuid) {action})"
    )
    world.sql("INSERT INTO pins VALUES (1, :run), (2, :live)", run=dead, live=world.ids["parent"])
    kept = {key for key in world.objects() if dead in key}
    planned = world.cleanup("--dry-run", "--only=runs")
    answer = world.cleanup("--yes", "--only=runs")
    for report in (planned, answer):
        why = {item["id"]: item["reason"] for item in report["skipped"]}
        assert "pins.run_uuid" in why[dead]
    assert kept <= world.objects()
    assert "plain-deleted" in world.runs()
    assert free not in world.rows("SELECT run_uuid FROM runs")
    assert set(world.rows("SELECT run_uuid FROM pins")) == {dead, world.ids["parent"]}
    if action:  # the database knows what to do with them
        world.cleanup("--yes", "--only=runs", "--ignore-reference=pins.run_uuid")
        assert "plain-deleted" not in world.runs()
    world.assert_whole()


def test_a_table_of_another_schema_counts_as_well(s3_world: World) -> None:
    dead = s3_world.ids["plain-deleted"]
    s3_world.sql("CREATE SCHEMA reports")
    s3_world.sql(
        "CREATE TABLE reports.best (run_uuid VARCHAR(32) REFERENCES runs (run_uuid) ON DELETE CASCADE)"
    )
    s3_world.sql("INSERT INTO reports.best VALUES (:run)", run=dead)
    answer = s3_world.cleanup("--yes", "--only=runs")
    why = {item["id"]: item["reason"] for item in answer["skipped"]}
    assert "reports.best.run_uuid" in why[dead]
    assert s3_world.rows("SELECT run_uuid FROM reports.best") == [dead]
    assert "plain-deleted" in s3_world.runs()


def test_a_row_that_refers_to_what_would_go_along_counts_as_well(small: Small) -> None:
    experiment = small.experiment("e")
    run = small.run(experiment)
    model = small.model(experiment, run)
    small.sql("CREATE TABLE shown (model VARCHAR(50) REFERENCES logged_models (model_id))")
    small.sql("INSERT INTO shown VALUES (:model)", model=model)
    small.delete(experiment=experiment)
    report = small.clean()
    assert "shown.model" in reasons(report)[experiment]
    assert f"{experiment}/models/{model}/artifacts/MLmodel" in small.files()
    assert small.rows("SELECT model FROM shown") == [model]


def test_dangling_rows_of_others_are_none_of_our_business(small: Small) -> None:
    small.sql("CREATE TABLE pins (run_uuid VARCHAR(32) REFERENCES runs (run_uuid))")
    small.sql("INSERT INTO pins VALUES ('gone')")
    assert small.clean().deleted["orphan_rows"] == 0
    assert small.rows("SELECT run_uuid FROM pins") == ["gone"]


def test_rows_that_the_database_keeps_keep_their_artifacts(small: Small) -> None:
    from console import UserError

    experiment = small.experiment("e")
    run = small.run(experiment)
    small.delete(run)
    small.sql("CREATE TRIGGER no BEFORE DELETE ON runs BEGIN SELECT raise(abort, 'runs are for ever'); END")
    before = small.files()
    with pytest.raises(UserError, match="runs are for ever"):
        small.clean()
    assert small.files() == before
    assert small.rows("SELECT run_uuid FROM runs") == [run]


@pytest.mark.parametrize("refusal", ["a trigger at the commit", "a key at the commit"])
def test_what_postgresql_refuses_keeps_its_artifacts(
    s3_world: World, refusal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world, flags = s3_world, ["--yes", "--only=runs"]
    late = "DEFERRABLE INITIALLY DEFERRED"
    if refusal == "a key at the commit":
        world.sql(f"CREATE TABLE pins (run VARCHAR(32) REFERENCES runs (run_uuid) {late})")
        world.sql("INSERT INTO pins VALUES (:run)", run=world.ids["plain-deleted"])
        flags.append("--ignore-reference=pins.run")
    else:
        body = "BEGIN RAISE 'runs are for ever'; END"
        world.sql(f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        world.sql(
            f"CREATE CONSTRAINT TRIGGER no AFTER DELETE ON runs {late} FOR EACH ROW EXECUTE FUNCTION no()"
        )
    keys, runs = world.objects(), world.runs()
    world.cleanup(*flags, code=1)
    assert "the database stopped the cleanup" in capsys.readouterr().err
    assert world.objects() == keys
    assert world.runs() == runs
    world.assert_whole()


def test_what_the_store_refuses_keeps_its_rows_and_the_rest_of_the_batch_goes(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    from artifacts.local import LocalStore

    experiment = small.experiment("e")
    refused, free = small.run(experiment), small.run(experiment)
    small.sql("INSERT INTO params (key, value, run_uuid) VALUES ('p', 'v', :run)", run=refused)
    small.delete(refused, free)
    delete = LocalStore.delete

    def refuse(store: LocalStore, keys: list[str]) -> dict[str, str]:
        held = {key: "held" for key in keys if refused in key}
        return held | delete(store, [key for key in keys if key not in held])

    monkeypatch.setattr(LocalStore, "delete", refuse)
    report = small.clean()
    assert report.failures == 1
    assert "held" in reasons(report)[refused]
    assert small.rows("SELECT run_uuid FROM runs") == [refused]
    assert small.rows("SELECT run_uuid FROM params") == [refused]
    assert {name.split("/")[1] for name in small.files()} == {refused}
