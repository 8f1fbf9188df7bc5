"""``python -m gateway``: run the standalone gateway in this process."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import arguments
import flags
import values
from console import note, user_errors
from flags import Flag, flag
from gateway.asgi import no_key, parse_hosts
from gateway.config import load, named
from process.serve import check_port, serve
from verbs import Request, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

ALLOWED_HOSTS = Flag(
    "allowed-hosts",
    values.text("LIST", "hosts with commas between"),
    "Host headers to serve",
    default="localhost,127.0.0.1,[::1]",
    server_variable="MLFLOW_SERVER_ALLOWED_HOSTS",
)


@verb("gateway", "", "Run the standalone AI gateway.", module=("gateway",))
class Standalone(Request):
    """The service `gateway`."""

    host: str = flag(flags.HOST, default="127.0.0.1", server_variable="MLFLOW_HOST")
    port: int = flag(flags.PORT, default=5556, server_variable="MLFLOW_PORT")
    config: str = flag(flags.GATEWAY_CONFIG)
    secrets: str = flag(flags.GATEWAY_SECRETS)
    allowed_hosts: str = flag(ALLOWED_HOSTS)
    check: bool = flag(flags.CHECK, help="check the configuration and end")


def main(words: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT; with ``--check``, check the configuration and end.

    Raises:
        UserError: the configuration is wrong, or the port is taken.
        UsageError: a word means nothing.
        SystemExit: 3 when the gateway cannot start.
    """
    given = arguments.read(words, Standalone)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_MODEL_CATALOG_URI", "")
    if not given.check:
        check_port(given.host, given.port)
    gateway = load(named(given.config), named(given.secrets))
    for name, reason in gateway.missing().items():
        note(f"warning: {no_key(name, reason)}")
    if not given.check:
        from gateway.app import create

        serve(partial(create, gateway, parse_hosts(given.allowed_hosts)), given.host, given.port)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
