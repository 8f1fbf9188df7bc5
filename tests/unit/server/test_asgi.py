"""What stands in front of mlflow's application, without mlflow."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from process.asgi import respond
from server.asgi import NotReady, Readiness, ServerTransfers
from server.upstream import NO_MULTIPART_UPLOAD, NO_PRESIGNED_DOWNLOAD

if TYPE_CHECKING:
    from process.asgi import App, Message, Receive, Send

INFO = {"multipart_uploads_enabled": True, "multipart_downloads_enabled": True, "store_type": "SqlStore"}


async def upstream(_scope: Message, _receive: Receive, send: Send) -> None:
    await respond(send, 200, INFO)


async def get(app: App, path: str) -> tuple[int, dict[str, str], Any]:
    """Ask an application: status, headers, JSON."""
    sent: list[Any] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "method": "GET", "path": path, "headers": []}, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert int(headers["content-length"]) == len(body)
    return sent[0]["status"], headers, json.loads(body)


@pytest.mark.parametrize("prefix", ["", "/ml"])
@pytest.mark.parametrize("kind", ["api", "ajax-api"])
def test_the_offer_of_presigned_transfers_is_withdrawn(prefix: str, kind: str) -> None:
    status, _, info = asyncio.run(
        get(ServerTransfers(upstream, prefix=prefix), f"{prefix}/{kind}/3.0/mlflow/server-info")
    )
    assert status == 200
    assert info == {**INFO, "multipart_uploads_enabled": False, "multipart_downloads_enabled": False}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/2.0/mlflow-artifacts/presigned/1/a/artifacts/f", NO_PRESIGNED_DOWNLOAD),
        ("/api/2.0/mlflow-artifacts/mpu/create/1/a/artifacts", NO_MULTIPART_UPLOAD),
    ],
)
def test_who_asks_for_a_presigned_address_all_the_same_is_told_that_there_is_none(
    path: str, message: str
) -> None:
    status, _, body = asyncio.run(get(ServerTransfers(upstream), path))
    assert (status, body["message"]) == (501, message)


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow-artifacts/artifacts/1/a/api/2.0/mlflow-artifacts/presigned/f",
        "/api/2.0/mlflow-artifacts/artifacts/api/3.0/mlflow/server-info",
        "/api/2.0/mlflow-artifacts/mpu/complete/1",
    ],
)
def test_everything_else_passes(path: str) -> None:
    assert asyncio.run(get(ServerTransfers(upstream), path))[2] == INFO


def test_the_messages_are_those_by_which_clients_fall_back() -> None:
    from mlflow.exceptions import _UnsupportedMultipartUploadException, _UnsupportedPresignedDownloadException

    assert _UnsupportedMultipartUploadException.MESSAGE == NO_MULTIPART_UPLOAD
    assert _UnsupportedPresignedDownloadException.MESSAGE == NO_PRESIGNED_DOWNLOAD


def test_many_probes_of_a_stalled_store_make_one_check_and_get_503() -> None:
    calls: list[int] = []
    answer = threading.Event()

    def check() -> list[str]:
        calls.append(1)
        answer.wait(60)
        return []

    async def probes() -> None:
        app = Readiness(upstream, check, "1.2.3", deadline=0.05)
        for status, _, body in await asyncio.gather(*(get(app, "/ready") for _ in range(20))):
            assert (status, body["version"]) == (503, "1.2.3")
            assert "did not answer" in body["status"]
        assert len(calls) == 1
        answer.set()
        app.deadline = 60
        assert (await get(app, "/ready"))[0] == 200
        assert (await get(app, "/other"))[2] == INFO

    asyncio.run(probes())


def test_a_failing_store_is_told_without_its_message() -> None:
    def check() -> list[str]:
        raise ConnectionError("postgresql://user:password@db")

    status, _, body = asyncio.run(get(Readiness(upstream, check, "1.2.3"), "/ready"))
    assert (status, body["status"]) == (503, "the tracking store fails: ConnectionError")


def test_what_has_no_room_is_named_and_only_the_backend_store_makes_the_server_unready() -> None:
    def check() -> list[str]:
        raise NotReady("the backend store has no room", full=["backend store"])

    status, _, body = asyncio.run(get(Readiness(upstream, check, "1"), "/ready"))
    assert (status, body) == (
        503,
        {"status": "the backend store has no room", "version": "1", "full": ["backend store"]},
    )
    status, _, body = asyncio.run(get(Readiness(upstream, lambda: ["artifacts"], "1"), "/ready"))
    assert (status, body) == (200, {"status": "ready", "version": "1", "full": ["artifacts"]})
