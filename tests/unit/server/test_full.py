"""Which errors mean that a store has no room."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError

from server.full import is_full


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
