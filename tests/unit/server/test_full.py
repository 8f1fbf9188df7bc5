"""Which errors mean that a store has no room."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError
from fastapi import FastAPI

from server import room as rooms
from server.full import is_full, tell_when_full


def refused(code: str, status: int) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (S3UploadFailedError("Failed to upload x: (InternalError): write x: no space left on device"), True),
        (S3UploadFailedError("Failed to upload x: (AccessDenied)"), False),
        (refused("XMinioStorageFull", 500), True),
        (refused("", 507), True),
        (refused("NoSuchBucket", 404), False),
    ],
)
def test_a_full_store_is_recognised(error: Exception, full: bool) -> None:
    assert is_full(error) is full


@pytest.mark.parametrize(
    ("status", "full"), [("507 Insufficient Storage", ["artifacts"]), ("200 OK", []), ("403 Forbidden", [])]
)
def test_an_object_store_that_says_that_it_is_full_is_believed(
    monkeypatch: pytest.MonkeyPatch, status: str, full: list[str]
) -> None:
    monkeypatch.setattr("server.room.dialect_of", lambda _engine: SimpleNamespace(has_room=lambda: True))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        answering = threading.Thread(target=answer)
        answering.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/-/room"
        engine: Any = None
        assert rooms.check(engine, "s3://bucket/artifacts", address) == full
        answering.join()
    # one that is away says nothing of its room
    assert rooms.check(engine, "s3://bucket/artifacts", address) == []


def test_a_full_folder_of_temporary_files_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()
    tell_when_full(app)
    handler: Any = app.exception_handlers[OSError]
    for room, told in ((False, "temporary files (TMPDIR) is full"), (True, "the artifact store is full")):
        monkeypatch.setattr("disks.has_room", lambda _folder, room=room: room)
        answer = asyncio.run(handler(None, OSError(errno.ENOSPC, "No space left on device")))
        assert answer.status_code == 507
        assert told in json.loads(answer.body)["message"]
