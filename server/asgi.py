"""What stands in front of mlflow's application: a readiness check, and the switch for presigned transfers.

Plain ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html), and no import of mlflow.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from typing import TYPE_CHECKING

from process.asgi import respond
from server.upstream import NO_MULTIPART_UPLOAD, NO_PRESIGNED_DOWNLOAD, OFFERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from process.asgi import App, Message, Receive, Send

    Answer = tuple[str, list[str]]  # why it is not ready, or ""; what has no room


class NotReady(Exception):  # noqa: N818 (it is an answer)
    """Why the server is not ready, in words that anyone may read; `full` names what has no room."""

    def __init__(self, reason: str, *, full: list[str]) -> None:
        super().__init__(reason)
        self.full = full


class Readiness:
    """``GET <prefix>/ready``: 200 when the check passes in time, else 503; JSON ``status``, ``version``, ``full``.

    ``full`` names what has no room, and is left out while all has.

    At most one check runs at a time, in a thread of its own, so that however many ask, and however long the
    store stalls, no more than one connection is taken.

    Args:
        app: what answers everything else.
        check: returns what has no room though the server is ready; raises when it is not.
        version: of mlflow.
        prefix: the static prefix, or "".
        deadline: seconds that one probe waits.
    """

    def __init__(
        self, app: App, check: Callable[[], list[str]], version: str, *, prefix: str = "", deadline: float = 5
    ) -> None:
        self.app = app
        self.check = check
        self.version = version
        self.path = f"{prefix}/ready"
        self.deadline = deadline
        self._running: asyncio.Future[Answer] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != self.path:
            await self.app(scope, receive, send)
            return
        problem, full = await self._ask()
        body = {"status": problem or "ready", "version": self.version, **({"full": full} if full else {})}
        await respond(send, 503 if problem else 200, body)

    async def _ask(self) -> Answer:
        if self._running is None or self._running.done():
            self._running = self._start()
        try:
            return await asyncio.wait_for(asyncio.shield(self._running), self.deadline)
        except TimeoutError:
            return f"the tracking store did not answer within {self.deadline:g} seconds", []

    def _start(self) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()

        def run() -> None:
            result: Answer
            try:
                result = "", self.check()
            except NotReady as reason:
                result = str(reason), reason.full
            except Exception as error:
                # The class alone: messages hold addresses and statements, and anyone may ask.
                result = f"the tracking store fails: {type(error).__name__}", []
            if not loop.is_closed():
                loop.call_soon_threadsafe(answer.set_result, result)

        threading.Thread(target=run, name="readiness", daemon=True).start()
        return answer


class ServerTransfers:
    """Make every transfer of an artifact go through the server, whatever the artifact store could do itself.

    For a store on S3 the server offers presigned addresses (``multipart_*_enabled`` in ``server-info``), and
    newer clients take them without asking; inside a stack they cannot reach them. Here the offer is
    withdrawn, and whoever asks for such an address all the same (``MLFLOW_ENABLE_PROXY_MULTIPART_*`` set
    in an older client) gets the answer of a store that has none, upon which clients fall back to the
    server (``mlflow.store.artifact.mlflow_artifacts_repo`` and ``http_artifact_repo``, 3.17.2).

    Args:
        app: mlflow's application.
        prefix: the static prefix, or "".
    """

    def __init__(self, app: App, *, prefix: str = "") -> None:
        self.app = app
        root = re.escape(prefix) + "/(?:ajax-)?api/"
        self._info = re.compile(root + r"3\.0/mlflow/server-info/?")
        self._transfer = re.compile(root + r"2\.0/mlflow-artifacts/(presigned|mpu/create)/.*", re.DOTALL)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self._info.fullmatch(scope["path"]):
            await self.app(scope, receive, _without_offer(send))
        elif asked := self._transfer.fullmatch(scope["path"]):
            message = NO_PRESIGNED_DOWNLOAD if asked[1] == "presigned" else NO_MULTIPART_UPLOAD
            await respond(send, 501, {"error_code": "NOT_IMPLEMENTED", "message": message})
        else:
            await self.app(scope, receive, send)


def _without_offer(send: Send) -> Send:
    """Pass on one answer of server-info, its presigned and multipart offers turned to false."""
    start: Message = {}
    chunks: list[bytes] = []

    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        chunks.append(message.get("body", b""))
        if message.get("more_body"):
            return
        body = b"".join(chunks)
        if start["status"] == 200:
            info = json.loads(body)
            for key in OFFERS:
                info[key] = False
            body = json.dumps(info).encode()
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    return forward


class BoundedExit:
    """End the process a while after its shutdown, even if a thread still waits for a store.

    uvicorn gives up on requests after its graceful timeout, but the interpreter then waits for the threads in
    which mlflow serves them.

    Args:
        app: the application.
        grace: seconds between the end of the shutdown and the end of the process.
    """

    def __init__(self, app: App, *, grace: float = 3) -> None:
        self.app = app
        self.grace = grace

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass everything on; watch for the shutdown."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def watched() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                timer = threading.Timer(self.grace, os._exit, (0,))
                timer.daemon = True
                timer.start()
            return message

        await self.app(scope, watched, send)
