"""Finding a taken port before anything is started."""

from __future__ import annotations

import socket
from contextlib import suppress

import psutil

from console import UserError


def check_port_is_free(host: str, port: int) -> None:
    """Find out whether a service could listen there.

    Raises:
        UserError: it could not; names the process that holds the port where the system tells.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"cannot listen on {host}, port {port}: {str(error.strerror).lower()}{_holder(port)}",
                f"take another port: invoke up --set port={port + 2}",
            ) from None


def _holder(port: int) -> str:
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port == port:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""


def listens(port: int) -> bool:
    """Whether something takes connections at a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
