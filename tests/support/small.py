"""A small MLflow without a server: SQLite, a folder, and MLflow's own store class; for messes that people get into."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import create_engine, text

from cleanup import Filters, execute, plan
from database.connection import connect

if TYPE_CHECKING:
    from cleanup import Report

ALL = {"orphan_grace": "0m", "include_undated": True}


class Small:
    """One database and one artifact destination."""

    def __init__(self, template: Path, folder: Path, root: Path | None = None) -> None:
        import mlflow.store.model_registry.sqlalchemy_store as registry_module
        import mlflow.store.tracking.sqlalchemy_store as tracking_module

        tracking: Any = tracking_module
        registry: Any = registry_module
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "mlflow.db"
        shutil.copy(template, self.file)
        self.uri = f"sqlite:///{self.file}"
        self.root = root or folder / "artifacts"
        self.root.mkdir(parents=True, exist_ok=True)
        self.store: Any = tracking.SqlAlchemyStore(self.uri, str(self.root))
        self.registry: Any = registry.SqlAlchemyStore(self.uri)

    def close(self) -> None:
        self.store._dispose_engine()
        self.registry._dispose_engine()

    def experiment(self, name: str, location: str | None = None) -> str:
        return str(self.store.create_experiment(name, location))

    def path(self, uri: str) -> Path:
        """Return where an artifact location is on this machine."""
        parts = urlsplit(uri)
        if parts.scheme == "mlflow-artifacts":
            return self.root / parts.path.lstrip("/")
        return Path(unquote(parts.path) if parts.scheme == "file" else uri)

    def write(self, uri: str, *names: str) -> None:
        for name in names:
            file = self.path(uri) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{uri} {name}")

    def run(self, experiment: str, *files: str) -> str:
        info = self.store.create_run(experiment, "u", 1, [], "run").info
        self.write(info.artifact_uri, *(files or ("file", "deep/er")))
        return str(info.run_id)

    def model(self, experiment: str, run: str | None = None) -> str:
        model = self.store.create_logged_model(experiment, "model", run)
        self.write(model.artifact_location, "MLmodel")
        return str(model.model_id)

    def trace(self, experiment: str, number: int) -> str:
        from mlflow.entities import TraceInfo, TraceLocation, TraceState

        info = self.store.start_trace(
            TraceInfo(f"tr-{number:032x}", TraceLocation.from_experiment_id(experiment), 1, TraceState.OK)
        )
        self.write(info.tags["mlflow.artifactLocation"], "traces.json")
        return str(info.trace_id)

    def version(self, name: str, source: str, run: str | None = None) -> None:
        self.registry.create_registered_model(name)
        self.registry.create_model_version(name, source, run)

    def artifacts(self, run: str) -> Path:
        return self.path(self.store.get_run(run).info.artifact_uri)

    def delete(self, *runs: str, experiment: str | None = None) -> None:
        for run in runs:
            self.store.delete_run(run)
        if experiment:
            self.store.delete_experiment(experiment)

    def sql(self, statement: str, **values: Any) -> None:
        engine = create_engine(self.uri)
        with engine.begin() as connection:
            connection.execute(text(statement), values)
        engine.dispose()

    def rows(self, query: str) -> list[Any]:
        engine = create_engine(self.uri)
        with engine.connect() as connection:
            values = list(connection.execute(text(query)).scalars())
        engine.dispose()
        return values

    def files(self, below: Path | None = None) -> dict[str, str]:
        """Return the files of a folder, by default of the destination, with what is in them."""
        root = below or self.root
        return {
            str(path.relative_to(root)): path.read_text()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    def clean(self, registry: str = "", **filters: Any) -> Report:
        """Plan, count, and do it, as one who answered yes."""
        engine = connect(self.uri)
        other = connect(registry) if registry else None
        try:
            planned = plan(engine, str(self.root), Filters(**{**ALL, **filters}), registry=other)
            return execute(planned)
        finally:
            engine.dispose()
            if other:
                other.dispose()


def reasons(report: Report) -> dict[str, str]:
    """Return why things stayed, by their id."""
    return {item.id: item.reason for item in report.skipped}
