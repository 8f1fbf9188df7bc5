"""Write to a backend store with whatever MLflow is installed, and read all of it back as plain values.

Runs inside environments of MLflow 2.0.1 to today, so it asks each client what it can do. ``python content.py
write URI FOLDER`` writes and prints nothing; ``python content.py read URI`` prints what is there as JSON.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from typing import Any

os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

LONG = "é" * 240


def write(uri: str, folder: str) -> None:
    """Write a little of everything that this MLflow version stores."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag, ViewType

    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    experiments = [
        client.create_experiment(name, f"file://{folder}/{name}") for name in ("one", "two", "gone")
    ]
    client.set_experiment_tag(experiments[0], "team", "ranking")
    runs: list[str] = []
    for number in range(6):
        experiment = experiments[number % 3]
        tags = {"mlflow.runName": f"run {number}", "mlflow.user": "alice", "note": LONG}
        if number == 3:
            tags["mlflow.parentRunId"] = runs[0]
        run = client.create_run(experiment, start_time=1_600_000_000_000 + number, tags=tags).info.run_id
        runs.append(run)
        metrics = [
            Metric("loss", 1 / (step + 1 + number), 1_600_000_000_000 + step, step) for step in range(50)
        ]
        metrics += [Metric("odd", value, 1_600_000_001_000, 0) for value in (float("nan"),)]
        metrics += [
            Metric("big", 1.7e308, 1, -5),
            Metric("tiny", 5e-324, 1, 2**40),
            Metric("loss", 0.5, 7, 3),
        ]
        metrics += [Metric("endless", float("inf"), 1, 1), Metric("endless", float("-inf"), 2, 2)]
        params = [Param("lr", str(0.1 * number)), Param("text", LONG), Param("empty name", "x")]
        client.log_batch(run, metrics, params, [RunTag("colour", "blå"), RunTag("n", str(number))])
        client.set_terminated(run, "FAILED" if number == 4 else "FINISHED", 1_600_000_100_000 + number)
    _datasets(client, runs[0])
    _models(client, runs)
    _traces(mlflow, experiments[0])
    _logged_models(client, experiments[0], runs[0])
    client.delete_run(runs[4])
    client.delete_experiment(experiments[2])
    assert len(client.search_runs(experiments, run_view_type=ViewType.ALL)) == 6


def _datasets(client: Any, run: str) -> None:
    if not hasattr(client, "log_inputs"):
        return
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        "train", "abc123", "local", '{"uri": "x.csv"}', schema='{"a": "int"}', profile='{"rows": 3}'
    )
    client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _models(client: Any, runs: list[str]) -> None:
    client.create_registered_model("ranker", {"owner": "bob"}, "ranks things")
    for number, run in enumerate(runs[:3]):
        source = client.get_run(run).info.artifact_uri + "/model"
        version = client.create_model_version(
            "ranker", source, run, tags={"n": str(number)}, description=f"version {number}"
        )
        if number == 1:
            client.transition_model_version_stage("ranker", version.version, "Production")
    client.create_registered_model("empty")
    if hasattr(client, "set_registered_model_alias"):
        client.set_registered_model_alias("ranker", "champion", "2")


def _traces(mlflow: Any, experiment: str) -> None:
    if not hasattr(mlflow, "start_span"):
        return
    mlflow.set_experiment(experiment_id=experiment)
    for number in range(3):
        with mlflow.start_span(name=f"call {number}") as span:
            span.set_inputs({"question": LONG})
            with mlflow.start_span(name="inside") as inner:
                inner.set_attribute("tokens", 17)
            span.set_outputs({"answer": number})
    client = mlflow.MlflowClient()
    for trace in client.search_traces(experiment_ids=[experiment]):
        identity = _trace_id(trace.info)
        client.set_trace_tag(identity, "kind", "test")
        if tuple(map(int, mlflow.__version__.split(".")[:2])) >= (3, 2):  # in earlier ones, Databricks only
            mlflow.log_feedback(trace_id=identity, name="good", value=True, rationale="reads well")


def _logged_models(client: Any, experiment: str, run: str) -> None:
    if not hasattr(client, "create_logged_model"):
        return
    model = client.create_logged_model(experiment, "agent", run, {"mood": "kind"}, {"depth": "3"}, "agent")
    client.log_metric(run, "quality", 0.75, 1_600_000_002_000, 4, model_id=model.model_id)
    client.finalize_logged_model(model.model_id, "READY")


def read(uri: str) -> dict[str, Any]:
    """Return every experiment, run, model and trace of the store; floats as text, so that NaN equals NaN."""
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient(uri)
    experiments = {e.experiment_id: e for e in _pages(client.search_experiments, view_type=ViewType.ALL)}
    runs = _pages(client.search_runs, list(experiments), run_view_type=ViewType.ALL)
    return {
        "experiments": {
            key: [e.name, e.lifecycle_stage, e.artifact_location, dict(e.tags)]
            for key, e in experiments.items()
        },
        "runs": {run.info.run_id: _run(client, run) for run in runs},
        "models": {model.name: _model(client, model) for model in _pages(client.search_registered_models)},
        "traces": _read_traces(
            client, [e for e in experiments if experiments[e].lifecycle_stage == "active"]
        ),
        "logged_models": _read_logged_models(client, list(experiments)),
    }


def _pages(search: Any, *args: Any, **kwargs: Any) -> list[Any]:
    entries: list[Any] = []
    token = None
    while True:
        page = search(*args, **kwargs, page_token=token)
        entries += page
        token = page.token
        if not token:
            return entries


def _run(client: Any, run: Any) -> dict[str, Any]:
    keys = sorted(run.data.metrics)
    history = {key: client.get_metric_history(run.info.run_id, key) for key in keys}
    inputs = getattr(run, "inputs", None)
    return {
        "info": [run.info.experiment_id, run.info.run_name, run.info.status, run.info.lifecycle_stage],
        "times": [run.info.start_time, run.info.end_time],
        "artifact_uri": run.info.artifact_uri,
        "user": run.info.user_id,
        "params": dict(run.data.params),
        "tags": dict(run.data.tags),
        "metrics": {key: repr(float(run.data.metrics[key])) for key in keys},
        "history": {
            key: sorted([m.timestamp, m.step, repr(float(m.value))] for m in values)
            for key, values in history.items()
        },
        "datasets": [
            {
                "dataset": [d.dataset.name, d.dataset.digest, d.dataset.source_type, d.dataset.source],
                "about": [d.dataset.schema, d.dataset.profile],
                "tags": {t.key: t.value for t in d.tags},
            }
            for d in (inputs.dataset_inputs if inputs else [])
        ],
    }


def _model(client: Any, model: Any) -> dict[str, Any]:
    versions = client.search_model_versions(f"name = '{model.name}'")
    return {
        "description": model.description or "",
        "tags": dict(model.tags),
        "aliases": dict(getattr(model, "aliases", {})),
        "versions": {
            str(v.version): [v.source, v.run_id, v.current_stage, v.status, v.description, dict(v.tags)]
            for v in versions
        },
    }


def _trace_id(info: Any) -> str:
    return str(getattr(info, "trace_id", None) or info.request_id)


def _read_traces(client: Any, experiments: list[str]) -> dict[str, Any]:
    if not hasattr(client, "search_traces"):
        return {}
    names = inspect.signature(client.search_traces).parameters
    options = {"include_spans": False} if "include_spans" in names else {}
    traces = client.search_traces(experiment_ids=experiments, max_results=100, **options)
    return {
        _trace_id(trace.info): {
            "time": trace.info.timestamp_ms,
            "took": trace.info.execution_time_ms,
            "status": str(getattr(trace.info.status, "value", trace.info.status)),
            "tags": dict(trace.info.tags),
            "metadata": dict(trace.info.request_metadata),
            "assessments": sorted(
                [a.name, str(a.feedback.value), a.rationale]
                for a in getattr(trace.info, "assessments", None) or []
            ),
        }
        for trace in traces
    }


def _read_logged_models(client: Any, experiments: list[str]) -> dict[str, Any]:
    if not hasattr(client, "search_logged_models"):
        return {}
    return {
        model.model_id: {
            "info": [model.name, model.experiment_id, model.source_run_id, str(model.status)],
            "artifact_location": model.artifact_location,
            "tags": dict(model.tags),
            "params": dict(model.params),
            "metrics": sorted(
                [m.key, repr(float(m.value)), m.timestamp, m.step] for m in model.metrics or []
            ),
        }
        for model in client.search_logged_models(experiments)
    }


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(*sys.argv[2:])
    else:
        print(json.dumps(read(sys.argv[2]), indent=1, sort_keys=True, ensure_ascii=False))
