"""Which errors mean that a store has no room."""

from __future__ import annotations

import asyncio
import errno
import json
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError
from fastapi import FastAPI

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


def test_a_full_folder_of_temporary_files_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()
    tell_when_full(app)
    handler: Any = app.exception_handlers[OSError]
    for room, told in ((False, "temporary files (TMPDIR) is full"), (True, "the artifact store is full")):
        monkeypatch.setattr("disks.has_room", lambda _folder, room=room: room)
        answer = asyncio.run(handler(None, OSError(errno.ENOSPC, "No space left on device")))
        assert answer.status_code == 507
        assert told in json.loads(answer.body)["message"]
