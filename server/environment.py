"""What the tracking server is told, and the private variables through which mlflow's application takes it."""

from __future__ import annotations

import argparse  # the flags and their defaults are those of `mlflow server`, not ours to declare
import os
import uuid
from typing import TYPE_CHECKING, Any

from server import upstream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Given = argparse.Namespace  # what `arguments` returns

# Set unless the environment says otherwise.
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",  # the gateway would fetch a catalogue from the web
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 8 more processes
}

# "true" lets clients fetch artifacts from the object store itself, at presigned addresses.
PRESIGNED = "_MLFLOW_STACKS_PRESIGNED"
WAIT_FOR_SCHEMA = "_MLFLOW_STACKS_WAIT_FOR_SCHEMA"

# Where the stack's own object store says whether it has room (images/object-store/durable.py).
STORE_ROOM = "_MLFLOW_STACKS_STORE_ROOM"

# A file with the gateway's passphrase before a rotation; empty, or not named, when there is none.
PREVIOUS_PASSPHRASE = "_MLFLOW_STACKS_PREVIOUS_PASSPHRASE_FILE"  # noqa: S105 (the variable's name)

# A file that workers lock while they start (server.app): the first one alone.
START_LOCK = "_MLFLOW_STACKS_START_LOCK"


def truth(value: str) -> bool:
    """Read a switch as mlflow does (``mlflow.environment_variables``): true and 1 are on."""
    return value.strip().lower() in {"true", "1"}


def _prefix(value: str) -> str:
    if value and (not value.startswith("/") or value.endswith("/") or "{" in value or "}" in value):
        raise argparse.ArgumentTypeError(
            f"'{value}' must begin with a slash, not end with one, and hold no brace"
        )
    return value


def arguments(argv: Sequence[str] | None, environ: Mapping[str, str]) -> Given:
    """Read the command line; each flag's default is the variable that ``mlflow server`` reads for it.

    Raises:
        SystemExit: 2, wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Run the MLflow tracking server.",
        epilog=f"{PRESIGNED}=true lets clients fetch artifacts from the object store (presigned URLs).",
    )

    def flag(name: str, default: str | None = None, *, help: str, **options: Any) -> None:  # noqa: A002
        variable = "MLFLOW_" + name.upper().replace("-", "_")
        otherwise = f", else {default}" if default else ""
        parser.add_argument(
            f"--{name}",
            default=environ.get(variable) or default,
            help=f"{help} (default: {variable}{otherwise})",
            **options,
        )

    flag("host", "127.0.0.1", help="address to listen on")
    flag("port", "5555", type=int, help="port to listen on")
    flag("workers", "1", type=int, help="worker processes, about 250 MB each")
    flag(
        "backend-store-uri",
        metavar="URI",
        help="database of the tracking store; a password shows in ps, so prefer the variable",
    )
    flag("registry-store-uri", metavar="URI", help="database of the model registry, if it is another one")
    flag("artifacts-destination", "./mlartifacts", metavar="URI", help="where artifacts go")
    flag(
        "default-artifact-root", "mlflow-artifacts:/", metavar="URI", help="artifact root of new experiments"
    )
    flag("static-prefix", "", type=_prefix, metavar="/PATH", help="path below which everything is served")
    flag("expose-prometheus", "", metavar="DIR", help="serve /metrics, kept in this folder, emptied at start")
    given = parser.parse_args(argv)
    if not given.backend_store_uri:
        parser.error("--backend-store-uri or MLFLOW_BACKEND_STORE_URI is required")
    return given


def private_variables(given: Given) -> dict[str, str]:
    """Make the variables that ``mlflow server`` sets for its workers (``mlflow.server._run_server``).

    Args:
        given: what `arguments` returned.
    """
    variables = {
        upstream.BACKEND_STORE: given.backend_store_uri,
        upstream.REGISTRY_STORE: given.registry_store_uri or given.backend_store_uri,
        upstream.ARTIFACT_ROOT: given.default_artifact_root,
        upstream.ARTIFACT_DESTINATION: given.artifacts_destination,
        upstream.SERVE_ARTIFACTS: "true",
        upstream.STATIC_PREFIX: given.static_prefix,
        upstream.METRICS_FOLDER: given.expose_prometheus,
        upstream.SERVER_KIND: "uvicorn",
        upstream.BOOT_ID: uuid.uuid4().hex,
        upstream.IN_JOB_EXECUTOR: "false",  # never rebuild scorer code in the server itself
    }
    return {name: value for name, value in variables.items() if value}


def apply(given: Given) -> None:
    """Put it all into this process' environment, for mlflow's modules read it when they are imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(private_variables(given))
