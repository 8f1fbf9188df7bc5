"""The story of a real client: what it writes, and that it reads all of it back, value by value."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Told:
    """What was written, to be compared with what is read."""

    experiment: str
    parent: str
    child: str
    metrics: tuple[tuple[float, int], ...]
    digest: str
    model: str


def tell(url: str, folder: Path, *, megabytes: int = 20) -> Told:
    """Create an experiment, a nested run, metrics, an artifact and a registered model.

    Args:
        url: the tracking server.
        folder: for the artifact before it is logged.
        megabytes: size of the artifact.
    """
    import mlflow

    _speak_to(url)
    name = f"story-{os.urandom(4).hex()}"
    experiment = mlflow.create_experiment(name)
    metrics = tuple((step * 0.5, step) for step in range(100))
    blob = folder / "blob.bin"
    digest = _random_file(blob, megabytes)
    with mlflow.start_run(experiment_id=experiment, run_name="parent") as parent:
        mlflow.log_params({"alpha": 0.1, "layers": "3,2"})
        mlflow.set_tag("team", "Ångström & søn")
        for value, step in metrics:
            mlflow.log_metric("loss", value, step=step)
        mlflow.log_artifact(str(blob), "deep/folder")
        with mlflow.start_run(experiment_id=experiment, run_name="child", nested=True) as child:
            mlflow.log_metric("accuracy", 0.75)
        mlflow.pyfunc.log_model(
            name="model", python_model=_double, registered_model_name=name, pip_requirements=["mlflow"]
        )
    blob.unlink()
    return Told(experiment, parent.info.run_id, child.info.run_id, metrics, digest, name)


def check(url: str, told: Told, folder: Path) -> None:
    """Read everything back and compare."""
    import mlflow

    _speak_to(url)
    client = mlflow.MlflowClient(url)
    parent = client.get_run(told.parent)
    assert parent.info.experiment_id == told.experiment
    assert parent.data.params == {"alpha": "0.1", "layers": "3,2"}
    assert parent.data.tags["team"] == "Ångström & søn"
    assert client.get_run(told.child).data.tags["mlflow.parentRunId"] == told.parent
    history = client.get_metric_history(told.parent, "loss")
    assert sorted((metric.value, metric.step) for metric in history) == sorted(told.metrics)
    path = Path(client.download_artifacts(told.parent, "deep/folder/blob.bin", str(folder)))
    assert _digest(path) == told.digest
    path.unlink()
    _check_model(client, told)


def _speak_to(url: str) -> None:
    """Make this process' client one of this server alone, whatever an earlier test told it."""
    import mlflow

    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)


def _check_model(client: MlflowClient, told: Told) -> None:
    import mlflow

    version = client.get_model_version(told.model, "1")
    assert version.status == "READY"
    assert version.run_id == told.parent
    assert mlflow.pyfunc.load_model(f"models:/{told.model}/1").predict([1, 2]) == [2, 4]


def _double(model_input: list[int]) -> list[int]:
    return [2 * value for value in model_input]


def _random_file(path: Path, megabytes: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(megabytes):
            block = os.urandom(2**20)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def some_run(url: str) -> Any:
    """Log one small run and return it as read back: the shortest proof that a server works."""
    import mlflow

    client = mlflow.MlflowClient(url)
    run = client.create_run("0")
    client.log_metric(run.info.run_id, "x", 1.0)
    return client.get_run(run.info.run_id)
