"""Which errors mean that a store has no room."""

from __future__ import annotations

import errno

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError

from server.full import is_full


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (S3UploadFailedError("Failed to upload x: (InternalError): write x: no space left on device"), True),
        (S3UploadFailedError("Failed to upload x: (AccessDenied)"), False),
        (ClientError({"Error": {"Code": "XMinioStorageFull"}, "ResponseMetadata": {}}, "PutObject"), True),
        (ClientError({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": 507}}, "PutObject"), True),
        (ClientError({"Error": {"Code": "NoSuchBucket"}, "ResponseMetadata": {}}, "PutObject"), False),
    ],
)
def test_a_full_store_is_recognised(error: Exception, full: bool) -> None:
    assert is_full(error) is full
