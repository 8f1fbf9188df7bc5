"""Ports: what a server binds to, and so whether it could; and whether something answers there."""

from __future__ import annotations

import errno
import socket

_NOT_HERE = {
    errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT,
}  # an address, or a whole family, that this machine has not


def bound(host: str, port: int) -> list[socket.socket]:
    """Return sockets that are bound to every address of a host, and do not listen yet.

    A name means each of its addresses: whoever opens `localhost` comes by 127.0.0.1 or by ::1, as it pleases the
    client, so neither may be somebody else's. One that this machine lacks, as where IPv6 is off, is left out while
    there is another. An IPv6 address is IPv6 alone, `::` too: so Docker publishes it, and asyncio binds it.

    Raises:
        OSError: the host has no address here, or one of them is taken; `socket.gaierror` where nobody knows the name.
    """
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ):
        try:
            # asyncio sends at once (TCP_NODELAY) only on a socket that names its protocol, and what it accepts
            sockets.append(_bound(family, kind, protocol, address))
        except OSError as error:
            if error.errno not in _NOT_HERE:
                _close(sockets)
                raise
            missing = error
    if missing and not sockets:
        raise missing
    return sockets


def _bound(family: int, kind: int, protocol: int, address: object) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)  # type: ignore[arg-type] # of getaddrinfo
    except OSError:
        made.close()
        raise
    return made


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def check_free(host: str, port: int) -> None:
    """Find out whether a server could listen on every address of a host.

    Raises:
        OSError: as in `bound`.
    """
    _close(bound(host, port))


def listens(port: int, greeting: bytes = b"") -> bool:
    """Whether something takes connections at a port of 127.0.0.1, and answers a greeting, if there is one."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(greeting)
            return not greeting or bool(connection.recv(1))
    except OSError:
        return False
