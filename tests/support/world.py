"""A data set made by a real client through a real tracking server, and how to look at one from outside.

Nothing here uses the package under test: what is alive is read with MLflow's client, and what dangles is
asked in SQL written down here.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, inspect, text

DEADLINE = 180


class Builder:
    """Makes the data set through a client; remembers names of what later tests ask for."""

    def __init__(self, uri: str) -> None:
        import mlflow

        self.mlflow = mlflow
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        self.client = mlflow.MlflowClient(uri)
        self.ids: dict[str, str] = {}

    def log_run(self, name: str, experiment: str, parent: str | None = None, *, dataset: bool = True) -> str:
        """Log a run with a metric history, params, tags, an input dataset and artifacts."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        tags = {"mlflow.runName": name} | ({"mlflow.parentRunId": parent} if parent else {})
        run: str = self.client.create_run(experiment, tags=tags).info.run_id
        metrics = [
            Metric(f"m{index}", index + step / 7, 1000 + step, step)
            for index in range(3)
            for step in range(9)
        ]
        metrics.append(Metric("odd", float("nan"), 5, 0))
        params = [Param(f"p{index}", f"{name}-{index}") for index in range(4)]
        self.client.log_batch(run, metrics, params, [RunTag("colour", name)])
        if dataset:
            source = Dataset(
                name="wine", digest="d1", source_type="local", source="{}", schema="{}", profile="{}"
            )
            self.client.log_inputs(run, [DatasetInput(source, [InputTag("mlflow.data.context", name)])])
        self.client.log_text(run, f"text of {name}", "notes/a.txt")
        self.client.log_text(run, "x" * 2000, "b.bin")
        self.ids[name] = run
        return run

    def model(self, name: str, experiment: str, run: str) -> str:
        """Create a logged model of a run, with params, tags, metrics and a file; it is the run's output."""
        from mlflow.entities import LoggedModelInput, LoggedModelOutput, LoggedModelStatus, Metric

        model = self.client.create_logged_model(
            experiment, name=name, source_run_id=run, tags={"t": name}, params={"depth": "3"}
        )
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "MLmodel").write_text(f"model of {name}\n")
            self.client.log_model_artifacts(model.model_id, folder)
        self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self.client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
        self.client.log_inputs(run, models=[LoggedModelInput(model.model_id)])
        self.client.log_batch(run, [Metric("score", 0.5, 1, 0, model_id=model.model_id)])
        self.ids[name] = model.model_id
        return str(model.model_id)

    def trace(self, name: str, experiment: str, run: str | None = None) -> str:
        """Log a trace with two spans, a tag and an assessment, perhaps out of a run."""
        import contextlib

        from mlflow.entities import AssessmentSource

        self.mlflow.set_experiment(experiment_id=experiment)
        inside = self.mlflow.start_run(run_id=run) if run else contextlib.nullcontext()
        with inside, self.mlflow.start_span(name) as span:
            span.set_inputs({"question": name})
            with self.mlflow.start_span("child") as child:
                child.set_outputs({"answer": 42})
            trace: str = span.trace_id
        self.mlflow.flush_trace_async_logging()
        self.client.set_trace_tag(trace, "colour", name)
        self.mlflow.log_feedback(
            trace_id=trace, name="good", value=True, source=AssessmentSource("HUMAN", "bob"), rationale=name
        )
        self.ids[name] = trace
        return trace

    def review(self, name: str, experiment: str, run: str, trace: str) -> None:
        """Make what people who judge traces make: a prompt, a scorer, an issue, a review queue, a dataset."""
        from mlflow.genai import datasets, label_schemas

        store = self.client._tracking_client.store
        prompt = self.client.register_prompt(f"prompt-{name}", "Say {{ word }}")
        self.client.link_prompt_version_to_run(run, prompt)
        self.client.link_prompt_versions_to_trace([prompt], trace)
        self.client.link_traces_to_run([trace], run)
        store.register_scorer(experiment, "polite", json.dumps({"name": "polite", "instructions": "be"}))
        store.create_issue(experiment, f"issue of {name}", "it is slow", source_run_id=run)
        schema = store.create_label_schema(
            experiment, name="tone", type="feedback", input=label_schemas.InputText()
        )
        queue = store.create_review_queue(
            experiment, name="to do", queue_type="custom", users=["bob"], schema_ids=[schema.schema_id]
        )
        store.add_items_to_review_queue(queue.queue_id, item_ids=[trace])
        questions = datasets.create_dataset(
            f"questions of {name}", sorted({experiment, self.ids["one"]}), {"of": name}
        )
        questions.merge_records([self.client.get_trace(trace)])
        self.ids[f"dataset {name}"] = questions.dataset_id

    def register(self, name: str, source: str, run: str, model: str | None = None) -> None:
        """Register a model version with an alias and a tag."""
        self.client.create_registered_model(name)
        version = self.client.create_model_version(
            name, source, run, model_id=model, await_creation_for=0
        ).version
        self.client.set_registered_model_alias(name, "champion", version)
        self.client.set_model_version_tag(name, version, "checked", "yes")

    def build_workspace(self) -> None:
        """Make a second workspace with experiments of the same names, a live and a deleted run in it."""
        self.client.create_workspace("team")
        self.mlflow.set_workspace("team")
        first, gone = self.client.create_experiment("one"), self.client.create_experiment("gone")
        self.log_run("team-live", first)
        self.client.delete_run(self.log_run("team-deleted", first))
        self.log_run("team-gone", gone)
        self.client.delete_experiment(gone)
        self.mlflow.set_workspace("default")
        self.ids |= {"team-one-experiment": first, "team-gone-experiment": gone}

    def build(self) -> dict[str, str]:
        """Make it all; return the ids by name."""
        client = self.client
        first = client.create_experiment("one", tags={"team": "ranking"})
        second = client.create_experiment("two")
        gone = client.create_experiment("gone", tags={"team": "nobody"})
        kept = client.create_experiment("kept")  # deleted, with a run that was restored
        self.ids.update(one=first, two=second, gone=gone, kept=kept)

        parent = self.log_run("parent", first)
        self.log_run("child-live", first, parent)
        self.log_run("child-deleted", first, parent)
        dead_parent = self.log_run("dead-parent", first)
        self.log_run("orphaned-child", first, dead_parent)
        model_run = self.log_run("model-run", first)
        self.model("model-live", first, model_run)
        self.model("model-deleted", first, model_run)
        source = self.log_run("model-source-deleted", second)
        self.model("model-of-deleted-run", second, source)
        registered = self.log_run("registered-run", second)
        self.register("shop", f"runs:/{registered}/notes", registered)
        old = self.log_run("plain-deleted", second)
        gone_run = self.log_run("gone-run", gone)
        self.log_run("gone-child", gone, gone_run)
        self.model("gone-model", gone, gone_run)
        self.trace("gone-trace", gone, gone_run)
        needed = self.log_run("needed-run", second)
        self.model("model-registered", second, needed)
        registered_model = self.ids["model-registered"]
        self.register("bank", f"models:/{registered_model}", needed, registered_model)
        self.trace("live-trace", first, parent)
        self.trace("live-trace-2", first)
        self.trace("trace-of-deleted-run", second, old)
        self.review("live", first, parent, self.ids["live-trace"])
        self.review("gone", gone, gone_run, self.ids["gone-trace"])
        survivor = self.log_run("survivor", kept)
        self.log_run("not-survivor", kept)

        dead = ["child-deleted", "dead-parent", "model-source-deleted", "registered-run", "plain-deleted"]
        for name in [*dead, "needed-run"]:
            client.delete_run(self.ids[name])
        client.delete_logged_model(self.ids["model-deleted"])
        client.delete_logged_model(self.ids["model-registered"])
        client.delete_experiment(gone)
        client.delete_experiment(kept)
        client.restore_run(survivor)
        again = client.create_experiment("gone-2")
        client.delete_experiment(again)
        self.ids["gone-2"] = again
        return self.ids


# What must be gone and what must stay after a plain cleanup of `Builder.build`'s data set.
PURGED_RUNS = {
    "child-deleted",
    "dead-parent",
    "model-source-deleted",
    "plain-deleted",
    "gone-run",
    "gone-child",
    "not-survivor",
}
PROTECTED_RUNS = {"registered-run", "needed-run"}


def read_live(uri: str) -> dict[str, Any]:
    """Read everything that is alive with MLflow's client, as plain values.

    References from a live thing to one that is gone are left out: a parent, a source run.
    """
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client: Any = MlflowClient(uri, registry_uri=uri)
    live: dict[str, Any] = {"experiments": {}, "runs": {}, "models": {}, "traces": {}, "registered": {}}
    live_runs: set[str] = set()
    experiments = client.search_experiments(view_type=ViewType.ALL)
    runs = [
        run
        for experiment in experiments
        for run in client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)
    ]
    live_runs = {run.info.run_id for run in runs}
    active = [item for item in experiments if item.lifecycle_stage == "active"]
    for experiment in active:
        live["experiments"][experiment.experiment_id] = dict(experiment)
    for run in runs:
        full = client.get_run(run.info.run_id)
        tags = dict(full.data.tags)
        if tags.get("mlflow.parentRunId") not in live_runs:
            tags.pop("mlflow.parentRunId", None)
        live["runs"][run.info.run_id] = {
            "info": repr(dict(full.info)),
            "params": full.data.params,
            "tags": tags,
            "metrics": {
                key: sorted(
                    repr((m.value, m.timestamp, m.step))
                    for m in client.get_metric_history(run.info.run_id, key)
                )
                for key in full.data.metrics
            },
            "inputs": repr([item.to_dictionary() for item in full.inputs.dataset_inputs]),
        }
    for experiment in active:
        for model in client.search_logged_models([experiment.experiment_id]):
            value = model.to_dictionary()
            if value.get("source_run_id") not in live_runs:
                value.pop("source_run_id", None)
                value["metrics"] = None
            live["models"][model.model_id] = repr(sorted(value.items()))
        for trace in client.search_traces(locations=[experiment.experiment_id]):
            value = trace.to_dict()
            metadata = value["info"].get("trace_metadata", {})
            if metadata.get("mlflow.sourceRun") not in live_runs:
                metadata.pop("mlflow.sourceRun", None)
            live["traces"][trace.info.trace_id] = value
    live["reviews"] = {item.experiment_id: _reviews(client, item.experiment_id) for item in active}
    for model in client.search_registered_models():
        live["registered"][model.name] = [
            (dict(client.get_model_version(model.name, version.version)), model.aliases)
            for version in client.search_model_versions(f"name = '{model.name}'")
        ]
    live["registered"] = repr(live["registered"])
    return live


def _reviews(client: Any, experiment: str) -> str:
    """Return what hangs on an experiment beside runs, models and traces."""
    store = client._tracking_client.store
    queues = store.list_review_queues(experiment)
    # a record outlives the trace that it was made of
    records = [
        (dataset.name, dataset.tags, [(record.inputs, record.outputs) for record in dataset.records])
        for dataset in client.search_datasets(experiment_ids=[experiment])
    ]
    return repr(
        (
            store.list_scorers(experiment),
            store.search_issues(experiment),
            list(store.list_label_schemas(experiment)),
            list(queues),
            [list(store.list_review_queue_items(queue.queue_id)) for queue in queues],
            records,
        )
    )


# (table, column, target, target column, condition): the references that MLflow makes by value.
BY_VALUE = [
    ("inputs", "destination_id", "runs", "run_uuid", "destination_type = 'RUN'"),
    ("inputs", "source_id", "runs", "run_uuid", "source_type IN ('RUN_INPUT', 'RUN_OUTPUT')"),
    ("inputs", "source_id", "datasets", "dataset_uuid", "source_type = 'DATASET'"),
    ("inputs", "destination_id", "logged_models", "model_id", "destination_type LIKE 'MODEL_%'"),
    ("input_tags", "input_uuid", "inputs", "input_uuid", "true"),
    ("entity_associations", "source_id", "trace_info", "request_id", "source_type = 'trace'"),
    ("entity_associations", "source_id", "runs", "run_uuid", "source_type = 'run'"),
    ("entity_associations", "destination_id", "runs", "run_uuid", "destination_type = 'run'"),
    ("entity_associations", "destination_id", "trace_info", "request_id", "destination_type = 'trace'"),
    ("logged_models", "source_run_id", "runs", "run_uuid", "true"),
    ("logged_model_metrics", "dataset_uuid", "datasets", "dataset_uuid", "true"),
    ("model_versions", "run_id", "runs", "run_uuid", "current_stage <> 'Deleted_Internal' AND run_id <> ''"),
    ("assessments", "run_id", "runs", "run_uuid", "true"),
    ("assessments", "experiment_id", "experiments", "experiment_id", "true"),
    ("tags", "value", "runs", "run_uuid", "key = 'mlflow.parentRunId'"),
    ("trace_request_metadata", "value", "runs", "run_uuid", "key = 'mlflow.sourceRun'"),
    ("trace_request_metadata", "value", "logged_models", "model_id", "key = 'mlflow.modelId'"),
    ("review_queue_items", "item_id", "trace_info", "request_id", "item_type = 'trace'"),
    ("review_queue_label_schemas", "schema_id", "label_schemas", "schema_id", "true"),
    ("endpoint_bindings", "resource_id", "scorers", "scorer_id", "resource_type = 'scorer'"),
    ("evaluation_dataset_records", "source_id", "trace_info", "request_id", "source_type = 'TRACE'"),
    ("sql_trace_metric_daily_rollups", "experiment_id", "experiments", "experiment_id", "true"),
    ("sql_span_cost_daily_rollups", "experiment_id", "experiments", "experiment_id", "true"),
    ("sql_assessment_daily_rollups", "experiment_id", "experiments", "experiment_id", "true"),
    ("sql_trace_rollup_rebuild_queue", "experiment_id", "experiments", "experiment_id", "true"),
]


def dangling(engine: Engine) -> dict[str, int]:
    """Count rows that point at nothing, over every foreign key and every reference by value."""
    inspector = inspect(engine)
    tables = {name: {c["name"] for c in inspector.get_columns(name)} for name in inspector.get_table_names()}
    counts: dict[str, int] = {}
    with engine.connect() as connection:
        for table in tables:
            for key in inspector.get_foreign_keys(table):
                on = " AND ".join(
                    f't."{theirs}" = c."{ours}"'
                    for ours, theirs in zip(key["constrained_columns"], key["referred_columns"], strict=True)
                )
                given = " AND ".join(f'c."{column}" IS NOT NULL' for column in key["constrained_columns"])
                query = f"""SELECT count(*) FROM "{table}" c WHERE {given} AND NOT EXISTS
                    (SELECT 1 FROM "{key["referred_table"]}" t WHERE {on})"""
                counts[f"{table}.{key['constrained_columns']}"] = int(
                    connection.execute(text(query)).scalar_one()
                )
        for table, column, target, target_column, condition in BY_VALUE:
            if column not in tables.get(table, ()) or target_column not in tables.get(target, ()):
                continue
            query = f"""SELECT count(*) FROM "{table}" c WHERE {condition} AND c."{column}" IS NOT NULL AND
                NOT EXISTS (SELECT 1 FROM "{target}" t
                WHERE CAST(t."{target_column}" AS VARCHAR(64)) = CAST(c."{column}" AS VARCHAR(64)))"""
            name = f"{table}.{column}->{target}"
            counts[name] = counts.get(name, 0) + int(connection.execute(text(query)).scalar_one())
        if "assessment_metadata" in tables.get("assessments", ()):
            texts = connection.execute(text("SELECT assessment_metadata FROM assessments")).scalars().all()
            runs = set(connection.execute(text("SELECT run_uuid FROM runs")).scalars())
            sources = [json.loads(item).get("mlflow.assessment.sourceRunId") for item in texts if item]
            counts["assessments.metadata"] = sum(bool(item) and item not in runs for item in sources)
    return {name: count for name, count in counts.items() if count}


def engine_for(uri: str) -> Engine:
    return create_engine(uri)


def owner_ids(engine: Engine) -> set[str]:
    """Return the ids that may own artifacts: every run, logged model, trace and experiment there is."""
    inspector = inspect(engine)
    tables = set(inspector.get_table_names())
    ids: set[str] = set()
    with engine.connect() as connection:
        for table, key in (("runs", "run_uuid"), ("logged_models", "model_id"), ("trace_info", "request_id")):
            if table in tables:
                ids.update(connection.execute(text(f"SELECT {key} FROM {table}")).scalars())
    return ids


def leave_workspace() -> None:
    """Forget the workspace that a client was in: it is kept for the whole process."""
    import mlflow

    mlflow.set_workspace(None)


def read_all_live(uri: str, workspaces: list[str | None]) -> dict[str, Any]:
    """Return `read_live` of each workspace (None: of a database that knows none)."""
    import mlflow

    live = {}
    for name in workspaces:
        os.environ["MLFLOW_ENABLE_WORKSPACES"] = "true" if name else "false"
        mlflow.set_tracking_uri(uri)
        if name:
            mlflow.set_workspace(name)
        try:
            live[str(name)] = read_live(uri)
        finally:
            if name:
                mlflow.set_workspace(None)
            os.environ.pop("MLFLOW_ENABLE_WORKSPACES")
    return live
