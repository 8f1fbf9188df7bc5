"""Cleanup deletes by owner: what something alive names is there afterwards, whoever's folder it lies in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.small import Small, reasons

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cleaned import World


def move(small: Small, run: str, experiment: str) -> None:
    """Do what is publicly advised, and what our own message advises."""
    small.sql("UPDATE runs SET experiment_id = :to WHERE run_uuid = :run", to=int(experiment), run=run)


def test_a_run_that_was_moved_keeps_its_artifacts_when_its_old_experiment_goes(small: Small) -> None:
    old, new = small.experiment("old"), small.experiment("new")
    moved, stays_dead = small.run(old), small.run(old)
    move(small, moved, new)
    model = small.model(old, moved)
    small.sql("UPDATE logged_models SET experiment_id = :to", to=int(new))
    small.delete(experiment=old)
    before = small.files(small.artifacts(moved))
    report = small.clean(only=("runs", "experiments"))
    assert report.deleted["experiment"] == report.deleted["run"] == 1
    assert small.files(small.artifacts(moved)) == before
    assert f"{old}/models/{model}/artifacts/MLmodel" in small.files()
    assert not any(stays_dead in name for name in small.files())


def test_a_moved_run_keeps_its_artifacts_on_every_store(world: World) -> None:
    run = world.ids["gone-child"]
    world.sql(
        "UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL WHERE run_uuid = :run", run=run
    )
    world.sql("UPDATE runs SET experiment_id = :to WHERE run_uuid = :run", to=int(world.ids["one"]), run=run)
    before = {key for key in world.objects() if run in key}
    assert before
    world.cleanup("--yes", "--only=runs,experiments")
    assert int(world.ids["gone"]) not in world.rows("SELECT experiment_id FROM experiments")
    assert before <= world.objects()


@pytest.mark.parametrize("form", ["plain", "file", "proxied", "doubled", "dotted"])
def test_an_experiment_inside_the_folder_of_another_keeps_its_artifacts(small: Small, form: str) -> None:
    outer = small.experiment("outer")
    inner_at = {
        "plain": f"{small.root}/{outer}/inside",
        "file": f"file://{small.root}/{outer}/inside",
        "proxied": f"mlflow-artifacts:/{outer}/inside",
        "doubled": f"{small.root}//{outer}/inside",
        "dotted": f"{small.root}/{outer}/../{outer}/inside",
    }[form]
    dead = small.run(outer)
    inner = small.experiment("inner")
    small.sql(
        "UPDATE experiments SET artifact_location = :at WHERE experiment_id = :id", at=inner_at, id=int(inner)
    )
    live = small.run(inner)
    small.delete(experiment=outer)
    before = small.files(small.artifacts(live))
    report = small.clean(only=("runs", "experiments"))
    assert report.deleted["experiment"] == 1
    assert small.files(small.artifacts(live)) == before
    assert not any(dead in name for name in small.files())


def test_an_experiment_inside_the_artifacts_of_a_deleted_run_keeps_its_artifacts(small: Small) -> None:
    outer = small.experiment("outer")
    dead = small.run(outer)
    inner = small.experiment("inner", f"{small.artifacts(dead)}/more")
    live, gone = small.run(inner), small.run(inner)
    before = small.files(small.artifacts(live))
    place = small.artifacts(dead)
    small.delete(dead, gone, experiment=outer)
    small.clean(only=("runs", "experiments"))
    assert small.files(small.artifacts(live)) == before
    assert not (place / "file").exists()


def test_two_experiments_with_one_location_lose_only_what_is_deleted(small: Small) -> None:
    first = small.experiment("first", f"{small.root}/shared")
    second = small.experiment("second", f"{small.root}/shared")
    dead, live = small.run(first), small.run(second)
    model, trace = small.model(second), small.trace(second, 1)
    small.model(first)
    small.trace(first, 2)
    small.write(f"{small.root}/shared", "README")
    small.delete(experiment=first)
    report = small.clean(only=("runs", "experiments"))
    assert report.deleted["experiment"] == report.deleted["logged_model"] == report.deleted["trace"] == 1
    assert set(small.files()) == {
        f"shared/{live}/artifacts/deep/er",
        f"shared/{live}/artifacts/file",
        f"shared/models/{model}/artifacts/MLmodel",
        f"shared/traces/{trace}/artifacts/traces.json",
        "shared/README",
    }
    assert dead not in small.rows("SELECT run_uuid FROM runs")


def test_a_second_server_with_the_same_numbers_in_the_same_root_loses_nothing(
    small: Small, empty_sqlite: Path, tmp_path: Path
) -> None:
    other = Small(empty_sqlite, tmp_path / "two", small.root)
    mine, theirs = small.experiment("mine"), other.experiment("theirs")
    assert mine == theirs
    small.run(mine)
    run, model = other.run(theirs), other.model(theirs)
    small.delete(experiment=mine)
    report = small.clean(only=("runs", "experiments"))
    other.close()
    assert report.deleted["experiment"] == 1
    assert set(small.files()) == {
        f"{theirs}/{run}/artifacts/deep/er",
        f"{theirs}/{run}/artifacts/file",
        f"{theirs}/models/{model}/artifacts/MLmodel",
    }


@pytest.mark.parametrize("form", ["{0}", "file://{0}", "{0}/", "{0}/../artifacts", "{1}", "{0}/deep"])
def test_a_deleted_run_whose_place_a_live_one_names_stays_or_leaves_it(small: Small, form: str) -> None:
    experiment = small.experiment("e")
    dead, live = small.run(experiment), small.run(experiment)
    place = small.artifacts(dead)
    uri = form.format(place, f"mlflow-artifacts:/{experiment}/{dead}/artifacts")
    small.sql("UPDATE runs SET artifact_uri = :uri WHERE run_uuid = :run", uri=uri, run=live)
    small.delete(dead)
    report = small.clean(only=("runs",))
    assert (place / "deep/er").exists()
    if form == "{0}/deep":
        assert report.deleted["run"] == 1
        assert not (place / "file").exists()
    else:
        assert reasons(report) == {dead: f"the artifacts of {live} are there"}
        assert (place / "file").exists()


def test_a_live_run_that_names_a_folder_above_keeps_all_in_it(small: Small) -> None:
    experiment = small.experiment("e")
    dead, live = small.run(experiment), small.run(experiment)
    small.sql(
        "UPDATE runs SET artifact_uri = :uri WHERE run_uuid = :run",
        uri=f"{small.root}/{experiment}",
        run=live,
    )
    small.delete(dead)
    before = small.files()
    assert dead in reasons(small.clean(only=("runs",)))
    assert small.files() == before


def test_a_version_that_names_a_path_keeps_it_and_all_above_it(small: Small) -> None:
    experiment = small.experiment("e")
    dead, unnamed = small.run(experiment), small.run(experiment)
    small.version("shop", f"mlflow-artifacts:/{experiment}/{dead}/artifacts/deep")
    small.delete(dead, unnamed)
    assert "registered model version shop/1 needs it" in reasons(small.clean(only=("runs",)))[dead]
    assert f"{experiment}/{dead}/artifacts/deep/er" in small.files()
    assert not any(unnamed in name for name in small.files())


def test_a_file_store_beside_it_keeps_what_is_not_artifacts(small: Small) -> None:
    """A database that was migrated from a file store names the same folders."""
    experiment = small.experiment("e")
    dead = small.run(experiment)
    small.write(f"{small.root}/{experiment}", "meta.yaml", f"{dead}/meta.yaml", f"{dead}/metrics/loss")
    small.delete(dead)
    assert small.clean(only=("runs",)).deleted["run"] == 1
    assert set(small.files()) == {
        f"{experiment}/meta.yaml",
        f"{experiment}/{dead}/meta.yaml",
        f"{experiment}/{dead}/metrics/loss",
    }


def test_a_trace_that_says_no_place_is_looked_for_where_mlflow_puts_it(small: Small) -> None:
    experiment = small.experiment("e")
    small.trace(experiment, 1)
    small.sql("DELETE FROM trace_tags")
    small.delete(experiment=experiment)
    assert small.clean().deleted["trace"] == 1
    assert small.files() == {}
