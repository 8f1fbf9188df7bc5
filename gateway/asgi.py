"""What stands in front of either gateway. Plain ASGI, and no import of mlflow."""

from __future__ import annotations

import fnmatch
import json
import re
from typing import TYPE_CHECKING, Any

from process.asgi import respond

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from process.asgi import App, Message, Receive, Send

_NOT_FOUND = re.compile(r"GatewayEndpoint not found \(name='(.+)'\)")


def no_key(name: str, reason: str) -> str:
    """Say why an endpoint cannot be served."""
    return f"endpoint '{name}' has no provider key: {reason}"


def error_body(detail: object) -> dict[str, Any]:
    """Make an error that mlflow's clients can read (``detail``), and OpenAI's (``error.message``)."""
    message = detail if isinstance(detail, str) else json.dumps(detail)
    return {"error": {"message": message, "type": "gateway_error"}, "detail": detail}


class AllowedHosts:
    """Refuse a request whose Host header is not on the list, as the tracking server does (DNS rebinding).

    Args:
        app: the application.
        hosts: patterns (fnmatch) for the whole header, port included; ``/health`` answers under any.
    """

    def __init__(self, app: App, hosts: Sequence[str]) -> None:
        self.app = app
        self.hosts = [host.replace("[", "[[]") for host in hosts]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] != "/health":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            if not any(fnmatch.fnmatchcase(host, allowed) for allowed in self.hosts):
                await respond(
                    send, 403, error_body(f"the host '{host}' is not in MLFLOW_SERVER_ALLOWED_HOSTS")
                )
                return
        await self.app(scope, receive, send)


class MissingKeys:
    """In the tracking server: an endpoint left out for want of its key says so, instead of "not found".

    Args:
        app: mlflow's application.
        reason: why an endpoint of this name is left out, or "".
        prefix: the static prefix, or "".
    """

    def __init__(self, app: App, reason: Callable[[str], str], *, prefix: str = "") -> None:
        self.app = app
        self.reason = reason
        self.path = f"{prefix}/gateway/"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith(self.path):
            await self.app(scope, receive, send)
            return
        start: Message = {}

        async def forward(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 404:
                start.update(message)
            elif start and message["type"] == "http.response.body":
                unknown = _NOT_FOUND.search(message.get("body", b"").decode("utf-8", "replace"))
                reason = self.reason(unknown[1]) if unknown else ""
                if unknown and reason:
                    start.clear()
                    await respond(send, 503, error_body(no_key(unknown[1], reason)))
                else:
                    await send(dict(start))
                    start.clear()
                    await send(message)
            else:
                await send(message)

        await self.app(scope, receive, forward)


def parse_hosts(text: str) -> list[str]:
    """Split a comma-separated list; an entry without a port stands for the host with any port as well."""
    hosts = [host.strip() for host in text.split(",") if host.strip()]
    return [pattern for host in hosts for pattern in (host, f"{host}:*")]
