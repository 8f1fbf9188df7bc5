"""An application that tells how the connection that it is asked through is set up."""

from __future__ import annotations

import gc
import os
import socket
from typing import TYPE_CHECKING

from process.asgi import respond

if TYPE_CHECKING:
    from process.asgi import App, Message, Receive, Send


def create() -> App:
    """Make it; each answer is ``{"pid": ..., "nodelay": ...}``."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                phase = (await receive())["type"].removeprefix("lifespan.")
                await send({"type": f"lifespan.{phase}.complete"})
                if phase == "shutdown":
                    return
        await respond(send, 200, {"pid": os.getpid(), "nodelay": _nodelay(tuple(scope["client"]))})

    return app


def _nodelay(client: tuple[str, int]) -> int:
    """TCP_NODELAY of the socket that is connected to a client."""
    for candidate in gc.get_objects():
        if isinstance(candidate, socket.socket) and candidate.fileno() != -1:
            try:
                peer = candidate.getpeername()
            except OSError:  # it listens
                continue
            if peer == client:
                return candidate.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    raise AssertionError(f"no socket is connected to {client}")
