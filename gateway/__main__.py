"""``python -m gateway``: run the standalone gateway in this process."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from console import note, user_errors
from gateway.asgi import no_key, parse_hosts
from gateway.config import load
from process.serve import check_port, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_HOSTS = "localhost,127.0.0.1,[::1]"


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two flags that say where the configuration and the provider keys are."""
    environ = os.environ
    parser.add_argument(
        "--config",
        type=Path,
        default=environ.get("MLFLOW_GATEWAY_CONFIG") or None,
        metavar="FILE",
        help="gateway.yaml (default: MLFLOW_GATEWAY_CONFIG); none, or one that is not there: no endpoints",
    )
    parser.add_argument(
        "--secrets",
        type=Path,
        default=environ.get("_MLFLOW_STACKS_GATEWAY_SECRETS") or None,
        metavar="DIR",
        help="folder of the provider keys, one file each (default: _MLFLOW_STACKS_GATEWAY_SECRETS)",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; with ``--check``, check the configuration and end.

    Raises:
        UserError: the configuration is wrong, or the port is taken.
        SystemExit: 2 on wrong usage, 3 when the gateway cannot start.
    """
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Run the standalone AI gateway.")
    parser.add_argument("--host", default=os.environ.get("MLFLOW_HOST") or "127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("MLFLOW_PORT") or 5556))
    add_file_arguments(parser)
    parser.add_argument(
        "--allowed-hosts",
        default=os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS") or DEFAULT_HOSTS,
        metavar="LIST",
        help=f"Host headers to serve (default: MLFLOW_SERVER_ALLOWED_HOSTS, else {DEFAULT_HOSTS})",
    )
    parser.add_argument("--check", action="store_true", help="check the configuration and end")
    given = parser.parse_args(argv)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_MODEL_CATALOG_URI", "")
    if not given.check:
        check_port(given.host, given.port)
    gateway = load(given.config, given.secrets)
    for name, reason in gateway.missing().items():
        note(f"warning: {no_key(name, reason)}")
    if not given.check:
        from gateway.app import create

        serve(partial(create, gateway, parse_hosts(given.allowed_hosts)), given.host, given.port)


if __name__ == "__main__":
    with user_errors():
        main()
