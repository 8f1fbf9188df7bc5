"""Ports for what is thrown away."""

from __future__ import annotations

import os
import socket


def free_port() -> int:
    """A port below the ephemeral range that nobody listens on."""
    for port in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port not in _handed_out and probe.connect_ex(("127.0.0.1", port)) != 0:
                _handed_out.add(port)
                return port
    raise AssertionError("no free port")


def free_ports() -> dict[str, object]:
    """A free port for everything that a stack may listen on, by setting."""
    return {name: free_port() for name in ("port", "gateway_port", "postgres_port", "object_store_port")}


_handed_out: set[int] = set()
