"""Ports for what is thrown away."""

from __future__ import annotations

import os
from contextlib import suppress

from process.ports import check_free


def free_port() -> int:
    """A port below the ephemeral range that nobody listens on."""
    for port in range(20000 + os.getpid() % 5000, 32000):
        if port not in _handed_out:
            with suppress(OSError):
                check_free("127.0.0.1", port)
                _handed_out.add(port)
                return port
    raise AssertionError("no free port")


def free_ports() -> dict[str, object]:
    """A free port for everything that a stack may listen on, by setting."""
    return {name: free_port() for name in ("port", "gateway_port", "postgres_port", "object_store_port")}


_handed_out: set[int] = set()
