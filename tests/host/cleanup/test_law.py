"""One law for whatever world people make: what a live entity names is there, byte for byte, after any cleanup."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import open_store
from console import UserError
from database import ownership
from database.connection import connect
from tests.support.small import Small

STEPS = [
    *("run", "run", "run", "model", "trace", "experiment", "shared location", "inside an experiment"),
    *("inside a run", "proxied", "doubled", "move run", "move run", "retarget", "share a run's place"),
    *("second server", "register path", "register run", "register elsewhere", "register model", "pin run"),
    *("pin model", "file store", "stray", "delete run", "delete run", "delete model", "delete experiment"),
    *("delete experiment", "restore run", "restore experiment", "cleanup", "encoded", "linked"),
    *("register runs:/", "trained on a run", "copy version", "untag traces", "staging", "staging"),
]  # fmt: skip
WORLD = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1000)), min_size=6, max_size=30)
ASKED = st.fixed_dictionaries(
    {
        "only": st.none()
        | st.lists(st.sampled_from(["runs", "experiments", "models", "orphans"]), min_size=1).map(tuple),
        "older_than": st.none() | st.sampled_from(["0m", "30d"]),
        "claim": st.booleans(),
    }
)


class World:
    """A server, another one in the same root, and a registry in a third database."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.one = Small(template, folder / "one")
        self.two = Small(template, folder / "two", self.one.root)
        self.registry = Small(template, folder / "registry", folder / "nowhere")
        self.experiments = [self.one.experiment("first")]
        self.runs: list[str] = []
        self.models: list[str] = []
        self.count = 0
        self.one.sql("CREATE TABLE pins (run VARCHAR(32) REFERENCES runs (run_uuid) ON DELETE CASCADE)")
        self.one.sql("CREATE TABLE shown (model VARCHAR(50) REFERENCES logged_models (model_id))")
        self.foreign: set[str] = set()  # files of the second server and of a file store

    def close(self) -> None:
        for small in (self.one, self.two, self.registry):
            small.close()

    def experiment_at(self, location: str | None) -> None:
        self.experiments.append(self.one.experiment(f"experiment {self.count}"))
        if location:
            at = "UPDATE experiments SET artifact_location = :at WHERE experiment_id = :id"
            self.one.sql(at, at=location, id=int(self.experiments[-1]))

    def location(self, experiment: str) -> str:
        return str(self.one.store.get_experiment(experiment).artifact_location)

    def step(self, what: str, number: int) -> None:  # noqa: PLR0912, PLR0915 (a list of what people do)
        """Do one thing that MLflow, or SQL, lets people do; what it refuses does not happen."""
        from mlflow.entities import Dataset, DatasetInput
        from mlflow.exceptions import MlflowException

        main, self.count = self.one, self.count + 1
        experiment = self.experiments[number % len(self.experiments)]
        run = self.runs[number % len(self.runs)] if self.runs else None
        model = self.models[number % len(self.models)] if self.models else None
        try:
            match what:
                case "experiment":
                    self.experiment_at(None)
                case "shared location":
                    self.experiment_at(self.location(experiment))
                case "inside an experiment":
                    self.experiment_at(f"{self.location(experiment)}/inside")
                case "inside a run" if run:
                    self.experiment_at(f"{main.store.get_run(run).info.artifact_uri}/inside")
                case "proxied":
                    self.experiment_at(f"mlflow-artifacts:/{self.experiments[0]}/proxied")
                case "doubled":
                    self.experiment_at(f"{main.root}//{experiment}/../doubled")
                case "encoded":
                    self.experiment_at(f"file://localhost{main.root}/{experiment}/r%C3%A4ume%20%2B/")
                case "linked" if run:
                    (main.artifacts(run) / "deep").mkdir(parents=True, exist_ok=True)
                    (main.root / f"link{self.count}").symlink_to(main.artifacts(run) / "deep")
                    at = ("mlflow-artifacts:/link{1}", "{0}/link{1}", "{0}/{2}/../link{1}")[number % 3]
                    self.experiment_at(at.format(main.root, self.count, experiment))
                case "run":
                    self.runs.append(main.run(experiment))
                case "model":
                    self.models.append(main.model(experiment, run))
                case "trace":
                    main.trace(experiment, self.count)
                case "move run" if run:
                    to = int(self.experiments[(number // 7) % len(self.experiments)])
                    main.sql("UPDATE runs SET experiment_id = :to WHERE run_uuid = :run", to=to, run=run)
                case "retarget":
                    at = "UPDATE experiments SET artifact_location = :at WHERE experiment_id = :id"
                    main.sql(at, at=f"{main.root}/team/{experiment}", id=int(experiment))
                case "share a run's place" if run:
                    other = self.runs[(number // 7) % len(self.runs)]
                    place = f"file://{main.artifacts(other)}" + ("/deep" if number % 2 else "")
                    main.sql("UPDATE runs SET artifact_uri = :at WHERE run_uuid = :run", at=place, run=run)
                case "second server":
                    before = set(main.files())
                    theirs = self.two.experiment(f"theirs {self.count}")
                    self.two.run(theirs)
                    self.two.model(theirs)
                    self.foreign |= set(main.files()) - before
                case "register path" if run:
                    main.version(f"model {self.count}", f"{main.artifacts(run)}/deep")
                case "copy version":
                    names = main.rows("SELECT name FROM model_versions WHERE current_stage = 'None'")
                    if names:
                        name = names[number % len(names)]
                        main.version(f"copy {self.count}", f"models:/{name}/1")
                        main.registry.delete_model_version(name, "1")
                case "trained on a run" if run:
                    maker = main.artifacts(self.runs[(number // 7) % len(self.runs)])
                    at = ("{0}/deep/er", "file://{0}", "mlflow-artifacts:/{1}/deep")[number % 3]
                    uri = at.format(maker, os.path.relpath(maker, main.root))
                    data = Dataset(f"data {self.count}", "1", "local", json.dumps({"uri": uri}))
                    main.store.log_inputs(run, [DatasetInput(data, [])])
                case "untag traces":
                    main.sql("DELETE FROM trace_tags WHERE key = 'mlflow.artifactLocation'")
                case "staging":
                    self.staging(run)
                case "register run" if run:
                    main.version(f"model {self.count}", "/elsewhere/x", run)
                case "register runs:/" if run:
                    self.registry.version(f"model {self.count}", f"runs:/{run}/deep")
                case "register elsewhere" if run:
                    self.registry.version(f"model {self.count}", f"file://{main.artifacts(run)}/deep")
                case "register model" if model:
                    self.registry.version(f"model {self.count}", "/elsewhere/x")
                    source = "UPDATE model_versions SET source = :at WHERE name = :name"
                    self.registry.sql(source, at=f"models:/{model}", name=f"model {self.count}")
                case "pin run" if run:
                    main.sql("INSERT INTO pins SELECT run_uuid FROM runs WHERE run_uuid = :run", run=run)
                case "pin model" if model:
                    pin = "INSERT INTO shown SELECT model_id FROM logged_models WHERE model_id = :model"
                    main.sql(pin, model=model)
                case "file store":
                    names = [f"8/{self.count:032x}/{name}" for name in ("meta.yaml", "artifacts/model")]
                    main.write(str(main.root), "8/meta.yaml", *names)
                    self.foreign |= {"8/meta.yaml", *names}
                case "stray":
                    main.write(str(main.root), f"{experiment}/{self.count:032x}/artifacts/x")
                case "delete run" if run:
                    main.delete(run)
                case "delete model" if model:
                    main.store.delete_logged_model(model)
                case "delete experiment":
                    main.delete(experiment=experiment)
                case "restore run" if run:
                    main.store.restore_run(run)
                case "restore experiment":
                    main.store.restore_experiment(experiment)
        except MlflowException:
            pass

    def staging(self, run: str | None) -> None:
        """Clean up in a copy beside the same folder, while its source goes on with what is dead there."""
        main = self.one
        engine = connect(main.uri)
        with engine.connect() as connection:
            owner = ownership.read(connection, open_store(str(main.root)))
        engine.dispose()
        if not owner.ours:  # nobody can know that it is a copy
            return
        copy = Small(main.file, main.file.parent / f"copy {self.count}", main.root)
        if run:
            main.store.restore_run(run)
        before = self.needed(all_of_it=False)
        with contextlib.suppress(UserError):
            copy.clean(self.registry.uri)
        copy.close()
        assert {path: path.read_bytes() for path in before if path.is_file()} == before

    def needed(self, *, all_of_it: bool) -> dict[Path, bytes]:
        """Return the files that something alive names; with `all_of_it` also what is in the trash."""
        main = self.one
        stage = "1 = 1" if all_of_it else "{0}.lifecycle_stage = 'active'"
        inside = f"JOIN experiments e ON e.experiment_id = t.experiment_id WHERE {stage.format('e')}"
        named = main.rows(f"SELECT artifact_uri FROM runs t WHERE {stage.format('t')}")
        named += main.rows(
            f"SELECT t.artifact_location FROM logged_models t {inside} AND {stage.format('t')}"
        )
        made = "JOIN runs r ON r.run_uuid = t.source_run_id AND r.lifecycle_stage = 'active'"
        made += " WHERE t.lifecycle_stage = 'active'"
        named += main.rows(f"SELECT t.artifact_location FROM logged_models t {made}")
        read = "JOIN inputs i ON i.source_id = d.dataset_uuid JOIN runs r ON r.run_uuid = i.destination_id"
        read += " WHERE r.lifecycle_stage = 'active'"
        named += [
            json.loads(text)["uri"] for text in main.rows(f"SELECT dataset_source FROM datasets d {read}")
        ]
        named += main.rows(
            f"SELECT g.value FROM trace_tags g JOIN trace_info t ON t.request_id = g.request_id {inside}"
            " AND g.key = 'mlflow.artifactLocation'"
        )
        for small in (main, self.registry):
            named += small.rows("SELECT source FROM model_versions WHERE source LIKE '%/%'")
            for run in small.rows("SELECT run_id FROM model_versions WHERE run_id <> ''"):
                named += main.rows(f"SELECT artifact_uri FROM runs WHERE run_uuid = '{run}'")
            for source in small.rows("SELECT source FROM model_versions WHERE source LIKE 'runs:/%'"):
                run = source.split("/")[1]
                named += main.rows(f"SELECT artifact_uri FROM runs WHERE run_uuid = '{run}'")
            for source in small.rows("SELECT source FROM model_versions WHERE source LIKE 'models:/m-%'"):
                model = source.removeprefix("models:/")
                named += main.rows(f"SELECT artifact_location FROM logged_models WHERE model_id = '{model}'")
        for table, column, location, key in (
            ("pins", "run", "artifact_uri", "run_uuid"),
            ("shown", "model", "artifact_location", "model_id"),
        ):
            parent = "runs" if table == "pins" else "logged_models"
            named += main.rows(f"SELECT p.{location} FROM {parent} p JOIN {table} o ON o.{column} = p.{key}")
        places = [Path(os.path.realpath(main.path(uri))) for uri in named]
        files = [path for path in main.root.rglob("*") if path.is_file()]
        kept = {path for path in files if any(place in (path, *path.parents) for place in places)}
        kept |= {main.root / name for name in self.foreign}
        return {path: path.read_bytes() for path in kept}

    def own_rows(self) -> list[Any]:
        return [*self.one.rows("SELECT run FROM pins"), *self.one.rows("SELECT model FROM shown")]

    def clean(self, asked: dict[str, Any]) -> None:
        """Clean up, and hold the law."""
        asked = dict(asked)
        asked["claim"] = asked["claim"] and not self.foreign  # who says that it is alone there must be
        before = self.needed(all_of_it=asked["older_than"] == "30d")
        rows, names = self.own_rows(), "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'"
        live = set(self.one.rows(names))
        with contextlib.suppress(UserError):  # it refuses, and the law holds all the same
            self.one.clean(self.registry.uri, **asked)
        assert {path: path.read_bytes() for path in before if path.is_file()} == before
        assert self.own_rows() == rows
        assert live <= set(self.one.rows(names))


@settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=int(os.environ.get("CLEANUP_EXAMPLES", "15")),
)
@given(steps=WORLD, asked=st.lists(ASKED, min_size=1, max_size=3))
def test_what_a_live_entity_names_is_there_after_any_cleanup(
    empty_sqlite: Path, steps: list[tuple[str, int]], asked: list[dict[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        world = World(empty_sqlite, Path(os.path.realpath(name)))
        for index, (what, number) in enumerate(steps):
            if what == "cleanup":
                world.clean(asked[index % len(asked)])
            else:
                world.step(what, number)
        world.clean(asked[0])
        world.clean({"only": None, "older_than": None, "claim": True})
        world.close()
