"""Worlds that people get into with MLflow's own client, a shell and some SQL: what is alive in them stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.small import Small, reasons


def test_a_run_that_was_moved_keeps_the_models_that_it_left_behind(small: Small) -> None:
    """Our own message advises to move the run; its models are not moved with it."""
    old, new = small.experiment("old"), small.experiment("new")
    run = small.run(old)
    model = small.model(old, run)
    small.sql("UPDATE runs SET experiment_id = :to", to=int(new))
    small.delete(experiment=old)
    before = small.files()
    report = small.clean()
    assert f"logged model {model} in it stays: its run {run} is not deleted" in reasons(report)[old]
    assert small.files() == before
    small.sql("UPDATE logged_models SET experiment_id = :to", to=int(new))
    assert small.clean().deleted["experiment"] == 1
    assert small.files() == before


def test_a_model_that_was_deleted_itself_goes_whoever_made_it(small: Small) -> None:
    old, new = small.experiment("old"), small.experiment("new")
    model = small.model(old, small.run(new))
    small.store.delete_logged_model(model)
    small.delete(experiment=old)
    assert small.clean(only=("experiments",)).deleted["logged_model"] == 1


@pytest.mark.parametrize("kind", ["run", "experiment"])
def test_what_is_dead_in_a_copy_may_be_alive_in_its_source(small: Small, tmp_path: Path, kind: str) -> None:
    experiment = small.experiment("e")
    run = small.run(experiment)
    small.clean(claim=True)
    small.delete(*([run] if kind == "run" else []), experiment=experiment if kind == "experiment" else None)
    copy = Small(small.file, tmp_path / "staging", small.root)
    if kind == "run":
        small.store.restore_run(run)
    else:
        small.store.restore_experiment(experiment)
    before = small.files()
    report = copy.clean()
    assert "may be alive in another database" in reasons(report)[run]
    assert small.files() == before
    assert run in copy.rows("SELECT run_uuid FROM runs")
    copy.clean(claim=True)
    assert not any(run in name for name in small.files())
    copy.close()


@pytest.mark.parametrize("form", ["{0}/link", "file://{0}/link", "mlflow-artifacts:/link"])
def test_an_experiment_behind_a_link_into_a_deleted_run_keeps_its_artifacts(small: Small, form: str) -> None:
    experiment = small.experiment("e")
    dead = small.run(experiment, "file", "inside/kept")
    (small.root / "link").symlink_to(small.artifacts(dead) / "inside")
    other = small.experiment("other")
    at = "UPDATE experiments SET artifact_location = :at WHERE experiment_id = :id"
    small.sql(at, at=form.format(small.root), id=int(other))
    small.run(other)
    small.delete(dead)
    before = small.files(small.artifacts(dead) / "inside")
    assert len(before) == 3
    place = small.artifacts(dead)
    assert small.clean(only=("runs",)).deleted["run"] == 1
    assert small.files(place / "inside") == before
    assert not (place / "file").exists()


@pytest.mark.parametrize(
    "form", ["{0}/data/train.csv", "file://{0}/data", "mlflow-artifacts:/{1}/data/train.csv"]
)
def test_a_dataset_of_a_live_run_is_kept_where_a_deleted_run_made_it(small: Small, form: str) -> None:
    from mlflow.entities import Dataset, DatasetInput

    experiment = small.experiment("e")
    maker, trained, other = (small.run(experiment, "data/train.csv", "log") for _ in range(3))
    place = small.artifacts(maker)
    source = form.format(place, f"{experiment}/{maker}/artifacts")
    for run, uri in (trained, source), (other, f"{small.artifacts(other)}/data/train.csv"):
        data = Dataset("wine", run, "local", json.dumps({"uri": uri}), None, None)
        small.store.log_inputs(run, [DatasetInput(data, [])])
    small.delete(maker, other)
    assert small.clean(only=("runs",)).deleted["run"] == 2
    kept = {name for name in small.files() if trained not in name}
    assert kept == {f"{experiment}/{maker}/artifacts/data/train.csv"}
    small.delete(trained)
    small.clean()


@pytest.mark.parametrize("trace", ["tr-%", "tr-______"])
def test_an_id_that_holds_wildcards_is_not_taken_for_another(small: Small, trace: str) -> None:
    experiment = small.experiment("e")
    dead = small.run(experiment)
    small.trace(experiment, 1)
    place = small.artifacts(dead)
    small.sql("PRAGMA foreign_keys = OFF")
    for table in ("trace_tags", "trace_request_metadata", "trace_info"):
        small.sql(f"UPDATE {table} SET request_id = :id", id=trace)
    small.write(f"{place}/x/tr-second/artifacts", "spans")
    at = "UPDATE trace_tags SET value = :at WHERE key = 'mlflow.artifactLocation'"
    small.sql(at, at=f"{place}/x/tr-second/artifacts")
    small.delete(dead)
    small.clean(only=("runs",))
    assert (place / "x/tr-second/artifacts/spans").exists()


def test_a_version_that_was_copied_needs_what_the_first_one_was_made_of(small: Small) -> None:
    experiment = small.experiment("e")
    dead, unnamed = small.run(experiment), small.run(experiment)
    small.version("first", f"{small.artifacts(dead)}/deep")
    small.version("second", "models:/first/1")
    small.registry.delete_model_version("first", "1")
    small.delete(dead, unnamed)
    assert "second/1" in reasons(small.clean(only=("runs",)))[dead]
    assert any(dead in name for name in small.files())


def test_a_real_file_store_in_the_same_folder_keeps_all_it_has(
    empty_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.store.tracking.file_store as module

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    small = Small(empty_sqlite, tmp_path / "one", tmp_path / "mlruns")
    files: Any = module
    theirs = files.FileStore(str(small.root), str(small.root))
    experiment, gone = theirs.create_experiment("theirs"), theirs.create_experiment("gone")
    runs = [theirs.create_run(at, "u", 1, [], None).info for at in (experiment, experiment, gone)]
    model = theirs.create_logged_model(experiment, "m", runs[0].run_id)
    for place in (*(run.artifact_uri for run in runs), model.artifact_location):
        small.write(place, "weights")
    theirs.delete_run(runs[1].run_id)
    theirs.delete_experiment(gone)
    dead = small.run(small.experiment("mine"))
    small.delete(dead)
    before = {name: text for name, text in small.files().items() if dead not in name}
    small.clean(claim=True)
    after = small.files()
    small.close()
    assert {name: after.get(name) for name in before} == before
    assert not any(dead in name for name in after)


def test_folders_three_deep_keep_what_is_alive_in_each(small: Small) -> None:
    outer = small.experiment("outer")
    first = small.run(outer)
    middle = small.experiment("middle", f"{small.artifacts(first)}/more")
    second, live = small.run(middle), small.run(middle)
    inner = small.experiment("inner", f"{small.artifacts(second)}/more")
    third, alive = small.run(inner), small.run(inner)
    kept = {str(small.artifacts(run)): small.files(small.artifacts(run)) for run in (live, alive)}
    small.delete(first, second, third, experiment=outer)
    for _ in range(3):
        small.clean(claim=True)
    assert {name: small.files(Path(name)) for name in kept} == kept
    assert not (small.root / outer / first / "artifacts" / "file").exists()
