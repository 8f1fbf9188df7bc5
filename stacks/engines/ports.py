"""Finding a taken port before anything is started."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from console import UserError
from process.ports import check_free
from stacks import catalogue
from stacks.definition.services import SERVICES
from stacks.state.opening import open_recorded
from stacks.state.record import RECORD

if TYPE_CHECKING:
    from stacks.definition.deployment import Deployment


def check_port_is_free(host: str, port: int, deployment: Deployment) -> None:
    """Find out whether a service of a deployment could listen there.

    Raises:
        UserError: it could not; names the process that holds the port where the system tells.
    """
    try:
        check_free(host, port)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UserError(
                f"'{host}' is no address of this machine",
                "it is the setting 'host': 127.0.0.1 is this machine alone, 0.0.0.0 is whoever reaches it",
                "for example: invoke up --set host=0.0.0.0",
            ) from None
        raise UserError(
            f"cannot listen on {host}, port {port}: {str(error.strerror).lower()}{_holder(port)}",
            *(
                f"stop the stack that has it: invoke down --stack={name}"
                for name in _neighbours(deployment, port)
            ),
            f"or take another port: invoke up --set port={port + 10}",
        ) from None


def _neighbours(deployment: Deployment, port: int) -> list[str]:
    """Other stacks of this checkout that were brought up with this port."""
    neighbours = []
    for name in sorted(path.parent.name for path in deployment.state.parent.glob(f"*/{RECORD}")):
        if name != deployment.name and name in catalogue.names():
            other = open_recorded(name)
            if any(port in SERVICES[service].ports(other.settings) for service in other.services):
                neighbours.append(name)
    return neighbours


def _holder(port: int) -> str:
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port == port:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
