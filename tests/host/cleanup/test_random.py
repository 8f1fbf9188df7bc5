"""Random histories of a server: whatever was created, deleted, restored and collected, the invariants hold."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanup import Filters, execute, plan
from console import UserError
from database.connection import connect
from tests.support.world import dangling, engine_for, owner_ids, read_live

if TYPE_CHECKING:
    from develop.scratch.servers import Postgres

_numbers = itertools.count(1)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "run", "run", "child", "model", "trace", "dataset", "delete run", "delete run", "restore run",
                "delete model", "experiment", "delete experiment", "restore experiment", "register", "gc", "cleanup",
            ]
        ),
        st.integers(0, 50),
    ),
    min_size=4,
    max_size=25,
)  # fmt: skip
FILTERS = st.builds(
    Filters,
    only=st.none()
    | st.lists(st.sampled_from(["runs", "experiments", "models", "orphans"]), min_size=1).map(tuple),
    older_than=st.none() | st.sampled_from(["0m", "30d"]),
    include_undated=st.booleans(),
    orphan_grace=st.sampled_from(["0m", "1d"]),
)
TRACES = st.just(Filters(only=("traces",), older_than="0m"))
IDS = st.tuples(
    st.sampled_from(["run_ids", "experiment_ids"]), st.lists(st.integers(0, 50), min_size=1, max_size=3)
)
Asked = Filters | tuple[str, list[int]]


class History:
    """A tracking store with a local artifact folder, driven through MLflow's own store class."""

    def __init__(self, uri: str, folder: Path) -> None:
        import mlflow.store.model_registry.sqlalchemy_store as registry_module
        import mlflow.store.tracking.sqlalchemy_store as tracking_module

        tracking: Any = tracking_module
        registry: Any = registry_module

        self.uri = uri
        self.root = folder / "artifacts"
        self.root.mkdir()
        self.store: Any = tracking.SqlAlchemyStore(self.uri, str(self.root))
        self.registry: Any = registry.SqlAlchemyStore(self.uri)
        self.experiments = [self.store.create_experiment("first")]
        self.runs: list[str] = []
        self.models: list[str] = []
        self.count = 0

    def pick(self, items: list[str], number: int) -> str | None:
        return items[number % len(items)] if items else None

    def step(self, what: str, number: int) -> None:
        """Do one thing; what MLflow refuses does not happen."""
        from mlflow.exceptions import MlflowException

        self.count += 1
        with contextlib.suppress(MlflowException):
            getattr(self, "do_" + what.replace(" ", "_"))(number)

    def do_experiment(self, _: int) -> None:
        self.experiments.append(self.store.create_experiment(f"experiment {self.count}"))

    def do_run(self, number: int, tags: list[Any] | None = None) -> None:
        from mlflow.entities import Metric, Param

        experiment = self.pick(self.experiments, number)
        run = self.store.create_run(experiment, "u", 1, tags or [], f"run {self.count}")
        self.runs.append(run.info.run_id)
        self.store.log_batch(
            run.info.run_id, [Metric("m", 1.0, s, s) for s in range(3)], [Param("p", "v")], []
        )
        path = Path(run.info.artifact_uri)
        path.mkdir(parents=True)
        (path / "file").write_text("x")

    def do_child(self, number: int) -> None:
        from mlflow.entities import RunTag

        if parent := self.pick(self.runs, number):
            self.do_run(number, [RunTag("mlflow.parentRunId", parent)])

    def do_model(self, number: int) -> None:
        from mlflow.entities import LoggedModelOutput

        run = self.pick(self.runs, number)
        model = self.store.create_logged_model(self.pick(self.experiments, number), f"model{self.count}", run)
        self.models.append(model.model_id)
        path = Path(model.artifact_location)
        path.mkdir(parents=True)
        (path / "MLmodel").write_text("x")
        if run:
            self.store.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])

    def do_trace(self, number: int) -> None:
        from mlflow.entities import TraceInfo, TraceLocation, TraceState

        run = self.pick(self.runs, number)
        experiment = str(self.pick(self.experiments, number))
        trace = f"tr-{self.count:032x}"
        self.store.start_trace(
            TraceInfo(
                trace_id=trace,
                trace_location=TraceLocation.from_experiment_id(experiment),
                request_time=1,
                state=TraceState.OK,
                trace_metadata={"mlflow.sourceRun": run} if run else {},
            )
        )
        if run:
            self.store.link_traces_to_run([trace], run)

    def do_dataset(self, number: int) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if run := self.pick(self.runs, number):
            source = Dataset("wine", f"d{number % 3}", "local", "{}")
            self.store.log_inputs(run, [DatasetInput(source, [InputTag("context", "train")])])

    def do_delete_run(self, number: int) -> None:
        if run := self.pick(self.runs, number):
            self.store.delete_run(run)

    def do_restore_run(self, number: int) -> None:
        if run := self.pick(self.runs, number):
            self.store.restore_run(run)

    def do_delete_model(self, number: int) -> None:
        if model := self.pick(self.models, number):
            self.store.delete_logged_model(model)

    def do_delete_experiment(self, number: int) -> None:
        self.store.delete_experiment(self.pick(self.experiments, number))

    def do_restore_experiment(self, number: int) -> None:
        self.store.restore_experiment(self.pick(self.experiments, number))

    def do_register(self, number: int) -> None:
        if run := self.pick(self.runs, number):
            uri = self.store.get_run(run).info.artifact_uri
            name = f"registered {self.count}"
            self.registry.create_registered_model(name)
            self.registry.create_model_version(name, uri, run)

    def do_gc(self, _: int) -> None:
        """Do what ``mlflow gc`` does, with its own functions."""
        for run in self.store._get_deleted_runs():
            shutil.rmtree(Path(self.store.get_run(run).info.artifact_uri), ignore_errors=True)
            self.store._hard_delete_run(run)
        for model in self.store._get_deleted_logged_models():
            self.store._hard_delete_logged_model(model)

    def live(self) -> tuple[dict[str, Any], set[Path]]:
        """Return what lives, value by value, and the files that it needs."""
        from sqlalchemy import text

        live = read_live(self.uri)
        live.pop("registered")  # a version may name a run that gc took
        engine = engine_for(self.uri)
        with engine.connect() as connection:
            needed = set(connection.execute(text("SELECT run_id FROM model_versions")).scalars())
        engine.dispose()
        owners = needed | set(live["runs"]) | set(live["models"])
        files = {path for path in self.root.rglob("*") if path.is_file() and owners & set(path.parts)}
        return live, files

    def filters(self, asked: Asked) -> Filters | None:
        """Return the filters, for ids out of this history."""
        if isinstance(asked, Filters):
            return asked
        name, numbers = asked
        known = self.runs if name == "run_ids" else self.experiments
        ids = tuple(dict.fromkeys(known[number % len(known)] for number in numbers if known))
        return (Filters(run_ids=ids) if name == "run_ids" else Filters(experiment_ids=ids)) if ids else None

    def clean(self, asked: Asked) -> None:
        """Clean up and check that everything alive is what and where it was."""
        if (filters := self.filters(asked)) is None:
            return
        before, files = self.live()
        everything = {path for path in self.root.rglob("*") if path.is_file()}
        engine = connect(self.uri)
        try:
            execute(plan(engine, str(self.root), filters, count=False))
        except UserError:  # an id that lives, or that gc took
            assert filters.run_ids or filters.experiment_ids
            assert {path for path in self.root.rglob("*") if path.is_file()} == everything
        engine.dispose()
        after, files_after = self.live()
        if "traces" in filters.kinds:
            after["traces"] = before["traces"] = {}
        assert after == before
        assert files_after == files


def tell(uri: str, folder: Path, steps: list[tuple[str, int]], filters: list[Asked]) -> None:
    """Let a history happen, clean up all that is left to clean up, and look for what is left behind."""
    history = History(uri, folder)
    for index, (what, number) in enumerate(steps):
        if what == "cleanup":
            history.clean(filters[index % len(filters)])
        else:
            history.step(what, number)
    history.clean(Filters(orphan_grace="0m", include_undated=True, claim=True))
    engine = engine_for(history.uri)
    assert dangling(engine) == {}
    owners = owner_ids(engine)
    engine.dispose()
    for path in history.root.rglob("*"):
        assert not path.is_file() or owners & set(path.parts) or path.parts[-2] == ".mlflow-stacks"
    history.store._dispose_engine()
    history.registry._dispose_engine()


SETTINGS = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
HISTORY = given(steps=STEPS, filters=st.lists(FILTERS | TRACES | IDS, min_size=1, max_size=3))


@settings(SETTINGS, max_examples=int(os.environ.get("CLEANUP_EXAMPLES", "15")))
@HISTORY
def test_any_history_with_any_filters_leaves_nothing_dangling(
    empty_sqlite: Path, steps: list[tuple[str, int]], filters: list[Asked]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(empty_sqlite, Path(name) / "mlflow.db")
        tell(f"sqlite:///{name}/mlflow.db", Path(name), steps, filters)


@settings(SETTINGS, max_examples=int(os.environ.get("CLEANUP_EXAMPLES", "10")))
@HISTORY
def test_any_history_on_postgresql_leaves_nothing_dangling(
    postgres: Postgres, empty_postgresql: str, steps: list[tuple[str, int]], filters: list[Asked]
) -> None:
    database = f"history{next(_numbers)}"
    postgres.sql(f'CREATE DATABASE "{database}" TEMPLATE "{empty_postgresql}"')
    with tempfile.TemporaryDirectory() as name:
        tell(postgres.uri(database), Path(name), steps, filters)
    postgres.sql(f'DROP DATABASE "{database}" WITH (FORCE)')
