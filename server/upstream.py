"""Every private name, private variable and message of MLflow that anything here leans on, and which MLflow has it.

Variables and messages are read from here. What is imported from MLflow is imported where it is used, so that type
checker and reader see it, and rooms below this one (`database`, `cleanup`, `artifacts`) may not import it: for both,
tests/unit/server/test_upstream.py holds the code against this table, so that nothing is missing from it and nothing in
it is needless. ``python -m server.upstream`` holds the table against the MLflow that is installed, and
tests/host/server/test_versions.py does so with the oldest that a stack may run, the newest, and two between.
"""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Callable

# Variables through which `mlflow server` tells its application (mlflow.server._run_server).
BACKEND_STORE = "_MLFLOW_SERVER_FILE_STORE"
REGISTRY_STORE = "_MLFLOW_SERVER_REGISTRY_STORE"
ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
ARTIFACT_DESTINATION = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
SERVE_ARTIFACTS = "_MLFLOW_SERVER_SERVE_ARTIFACTS"
STATIC_PREFIX = "_MLFLOW_STATIC_PREFIX"
METRICS_FOLDER = "prometheus_multiproc_dir"
SERVER_KIND = "_MLFLOW_SGI_NAME"
BOOT_ID = "_MLFLOW_SERVER_BOOT_ID"
IN_JOB_EXECUTOR = "_MLFLOW_IN_JOB_EXECUTOR"
JOB_QUEUES = "_MLFLOW_HUEY_STORAGE_PATH"

# What MLflow says for a store without such transfers. Clients fall back to the server when the answer is 501
# (downloads) or its message begins with the first of these (uploads).
NO_MULTIPART_UPLOAD = "Multipart upload is not supported for the current artifact repository"
NO_PRESIGNED_DOWNLOAD = "Presigned download is not supported for the current artifact repository"

# Keys of `server-info` with which a server offers transfers past itself.
OFFERS = ("multipart_uploads_enabled", "multipart_downloads_enabled")


@dataclass(frozen=True)
class Import:
    """A name that is imported, with the module alone where only that must be there.

    Args:
        name: such as ``mlflow.server.handlers:_get_tracking_store``; what follows the colon may be dotted.
        need: what we need it for.
        since: the first MLflow that has it.
        until: the first MLflow that has it no more.
        takes: how many arguments it is called with, or the names of those given by name; None: it is not called.
        value: what it must be, where it is a text.
    """

    name: str
    need: str
    since: str = "3.3"
    until: str = ""
    takes: int | tuple[str, ...] | None = None
    value: str = ""

    def problem(self) -> str:
        """Say what is wrong with it in the MLflow that is installed; "" when nothing is."""
        module, _, attributes = self.name.partition(":")
        if not attributes:  # by its file: importing some takes packages that only their users have
            path = _package() / Path(*module.split(".")[1:])
            there = path.with_suffix(".py").exists() or (path / "__init__.py").exists()
            return "" if there else "there is no such module"
        try:
            named: Any = importlib.import_module(module)
            for attribute in attributes.split("."):
                named = getattr(named, attribute)
        except (ImportError, AttributeError) as error:
            return str(error)
        if self.value and named != self.value:
            return f"it is {named!r}"
        return "" if self.takes is None else _refusal(named, self.takes)


@dataclass(frozen=True)
class Text:
    """A text that some file of MLflow holds: a variable, a message, a key.

    Args:
        name: the text.
        within: the file or folder, below MLflow's own.
        need: what we need it for.
        since: as `Import`'s.
        until: as `Import`'s.
    """

    name: str
    within: str
    need: str
    since: str = "3.3"
    until: str = ""

    def problem(self) -> str:
        """See `Import.problem`."""
        path = _package() / self.within
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []
        if any(self.name in file.read_text(encoding="utf-8") for file in files):
            return ""
        return f"it stands nowhere in {self.within}" if files else f"there is no {self.within}"


def _package() -> Path:
    import mlflow

    return Path(mlflow.__file__).parent


def _refusal(function: Callable[..., Any], takes: int | tuple[str, ...]) -> str:
    """Why a function cannot be called with these arguments, or ""."""
    signature = inspect.signature(function)
    try:
        if isinstance(takes, int):
            signature.bind(*range(takes))
        else:
            signature.bind(**dict.fromkeys(takes))
    except TypeError as error:
        return f"it takes {signature}: {error}"
    return ""


_WORKERS = "`server` tells the application what `mlflow server` would"
_REFERENCE = "`cleanup` knows a reference that no foreign key tells"
_GATEWAY = "`gateway` reads gateway.yaml"
_SYNC = "`gateway.sync` brings the gateway inside the server into line with gateway.yaml"

TABLE: tuple[Import | Text, ...] = (
    # The application, and what it is told
    Import("mlflow.server.fastapi_app:app", "the application that `server` serves"),
    Import("mlflow.server.handlers:initialize_backend_stores", "the stores are opened at start", takes=3),
    Import("mlflow.server.handlers:_get_tracking_store", "/ready asks the store that requests use", takes=0),
    Import("mlflow.version:VERSION", "/ready tells it"),
    Import(
        "mlflow.tracing.trace_rollup_service:validate_sql_trace_rollup_startup",
        "MLflow checks its settings for daily sums of traces",
        since="3.17",
        takes=1,
    ),
    Text(BACKEND_STORE, "server", _WORKERS),
    Text(REGISTRY_STORE, "server", _WORKERS),
    Text(ARTIFACT_ROOT, "server", _WORKERS),
    Text(ARTIFACT_DESTINATION, "server", _WORKERS),
    Text(SERVE_ARTIFACTS, "server", _WORKERS),
    Text(STATIC_PREFIX, "server", _WORKERS),
    Text(METRICS_FOLDER, "server", _WORKERS),
    Text(SERVER_KIND, "environment_variables.py", _WORKERS, since="3.4"),
    Text(BOOT_ID, "environment_variables.py", _WORKERS, since="3.16"),
    Text(IN_JOB_EXECUTOR, "environment_variables.py", "scorers are never built in the server", since="3.17"),
    # Transfers of artifacts
    Import(
        "mlflow.exceptions:_UnsupportedMultipartUploadException.MESSAGE",
        "clients fall back to the server",
        value=NO_MULTIPART_UPLOAD,
    ),
    Text(NO_PRESIGNED_DOWNLOAD, "exceptions.py", "clients fall back to the server", since="3.15"),
    Text("mlflow-artifacts/mpu/create", "protos", "uploads past the server are refused"),
    Text("mlflow-artifacts/presigned", "protos", "downloads past the server are refused", since="3.11"),
    Text("mlflow/server-info", "server", "the offer of transfers past the server is withdrawn", since="3.10"),
    *(Text(key, "server/handlers.py", "as above", since="3.15") for key in OFFERS),
    Import("mlflow.store.workspace", "`cleanup` and `backups` know the folders of workspaces", since="3.10"),
    Import("mlflow.server.artifact_router", "a full store is answered by 507", since="3.15"),
    # Background jobs
    Import("mlflow.server.jobs.utils:_check_requirements", "jobs suit the database", since="3.5", takes=1),
    Import("mlflow.server.jobs.utils:_launch_job_runner", "jobs are run", since="3.5", takes=2),
    Import("mlflow.server.jobs.utils:_launch_job_execution_runner", "jobs are run", since="3.17", takes=2),
    Import(
        "mlflow.server.jobs.executor_registry:validate_executor_config",
        "MLflow checks its settings for jobs",
        since="3.17",
        takes=0,
    ),
    Text(JOB_QUEUES, "server", "where the runner and the server keep their queues", since="3.5"),
    # The gateways
    Import("mlflow.gateway.app:create_app_from_config", "the standalone gateway's application", takes=1),
    Import(
        "mlflow.gateway.app:GatewayAPI._get_provider_by_name",
        "an endpoint without its key says so",
        since="3.6",
        takes=2,
    ),
    Import("mlflow.gateway.exceptions:AIGatewayException", "what a provider said reaches the client"),
    Import("mlflow.gateway.config:GatewayConfig", _GATEWAY, since="3.6", takes=("endpoints", "routes")),
    Import("mlflow.gateway.config:EndpointConfig", _GATEWAY, since="3.6"),
    Import("mlflow.gateway.config:EndpointType", _GATEWAY, since="3.6"),
    Import("mlflow.gateway.config:TrafficRouteConfig", _GATEWAY, since="3.6"),
    Import("mlflow.gateway.config:Model", _GATEWAY, takes=("provider",)),
    Import("mlflow.gateway.provider_registry:provider_registry", _GATEWAY),
    Import("mlflow.gateway.utils:is_valid_endpoint_name", _GATEWAY, takes=1),
    Text("mlflow/gateway/secrets/create", "protos", _SYNC, since="3.8"),
    Text("mlflow/gateway/model-definitions/create", "protos", _SYNC, since="3.8"),
    Text("mlflow/gateway/endpoints/create", "protos", _SYNC, since="3.8"),
    Text("mlflow/gateway/endpoints/set-tag", "protos", _SYNC, since="3.8"),
    Import("mlflow.server.gateway_api:_build_endpoint_config", _SYNC, since="3.9"),
    Text(" not found ({", "store/tracking", "an endpoint without its key says so", since="3.8"),
    Import("mlflow.utils.crypto:KEKManager", "the gateway's passphrase is rotated", since="3.8", takes=1),
    Import("mlflow.utils.crypto:unwrap_dek", "as above", since="3.8", takes=2),
    Import("mlflow.utils.crypto:wrap_dek", "as above", since="3.8", takes=2),
    # Below the server
    Import("mlflow.store.db.base_sql_model", "`database` runs MLflow's migrations"),
    Import("mlflow.store.tracking.dbmodels.initial_models:Base", "as above: the schema of before the first"),
    Text('attributes.get("connection"', "store/db_migrations/env.py", "as above: with our connection"),
    Import(
        "mlflow.store.artifact.artifact_repository_registry:get_artifact_repository",
        "`artifacts` reads stores for which it has nothing of its own",
        takes=1,
    ),
    Text("mlflow.artifactLocation", "utils/mlflow_tags.py", "where the files of a trace are"),
    Text(
        "mlflow.trace.archiveLocation", "utils/mlflow_tags.py", "as above, of an archived one", since="3.13"
    ),
    Text("mlflow.parentRunId", "utils/mlflow_tags.py", _REFERENCE),
    Text("mlflow.sourceRun", "tracing/constant.py", _REFERENCE),
    Text("mlflow.modelId", "tracing/constant.py", _REFERENCE),
    Text("mlflow.assessment.sourceRunId", "tracing/constant.py", _REFERENCE),
    Text("REDACTED-RUN-ID", "store/model_registry/sqlalchemy_store.py", _REFERENCE),
    # The modules that `cleanup` names as its sources
    Import("mlflow.store.tracking.sqlalchemy_store", _REFERENCE),
    Import("mlflow.store.tracking.dbmodels.models", _REFERENCE),
    Import("mlflow.store.model_registry.sqlalchemy_store", _REFERENCE),
    Import("mlflow.entities.entity_type", _REFERENCE),
    Import("mlflow.entities.gateway_endpoint", _REFERENCE, since="3.8"),
    Import("mlflow.tracing.constant:AssessmentMetadataKey", _REFERENCE),
    Import("mlflow.tracing.constant:TraceMetadataKey", _REFERENCE),
    Import("mlflow.utils.mlflow_tags", _REFERENCE),
    Import("mlflow.server.auth.db.models", _REFERENCE),
)


@dataclass(frozen=True)
class Feature:
    """What works from some MLflow on.

    Args:
        name: as a reader knows it.
        since: the first MLflow with which it works here.
        before: how it is with older ones.
        shown_by: the entry of `TABLE` that came with it; "" where tests/host/server/test_versions.py tries it out.
    """

    name: str
    since: str
    before: str
    shown_by: str = ""


FEATURES = {
    "server": Feature("a stack: tracking, registry, traces, artifacts through the server", "3.3", "refused"),
    "hosts": Feature(
        "the server checks the Host header and the origin",
        "3.5",
        "serves under any name: leave `host` at 127.0.0.1, or put a proxy that checks in front",
    ),
    "jobs": Feature("background jobs (`MLFLOW_SERVER_ENABLE_JOB_EXECUTION`)", "3.5", "refused"),
    "standalone": Feature("the standalone AI gateway", "3.6", "refused"),
    "gateway": Feature("the AI gateway inside the server", "3.9", "refused: `--set gateway=standalone`"),
    "workspaces": Feature(
        "workspaces (`MLFLOW_ENABLE_WORKSPACES`)", "3.10", "there are none", "mlflow.store.workspace"
    ),
    "archive": Feature("archived traces", "3.13", "there are none", "mlflow.trace.archiveLocation"),
    "presigned": Feature(
        "clients may fetch artifacts from the store itself, at presigned addresses",
        "3.15",
        "through the server, unless a client is set to (`MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD`, `_DOWNLOAD`)",
        OFFERS[0],
    ),
    "full": Feature(
        "a full artifact store is answered by 507, which clients do not try again",
        "3.15",
        "by 500, after which clients try for minutes",
        "mlflow.server.artifact_router",
    ),
}


def listed(version: str) -> list[tuple[Import | Text, bool]]:
    """Every entry, and whether a version of MLflow should have it."""
    this = Version(version)
    return [
        (entry, Version(entry.since) <= this and not (entry.until and Version(entry.until) <= this))
        for entry in TABLE
    ]


def main() -> None:
    """Print as JSON what the installed MLflow lacks, and what it has although the table says otherwise."""
    from mlflow.version import VERSION

    wrong = {}
    for entry, expected in listed(VERSION):
        problem = entry.problem()
        if expected and problem:
            wrong[entry.name] = problem
        elif not expected and not problem:
            wrong[entry.name] = f"it is there; the table says from {entry.since} on"
    print(json.dumps({"mlflow": VERSION, "checked": len(TABLE), "wrong": wrong}))


if __name__ == "__main__":
    main()
