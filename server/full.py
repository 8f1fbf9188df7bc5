"""A full artifact store is told to the client as such: 507, which it does not try again, instead of 500."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

INSUFFICIENT_STORAGE = 507
# The disk's own words, as rclone passes them on, what MinIO and its forks say, and what rclone answers when the client
# library asks again after a multipart upload could not be put together for want of room.
_FULL = re.compile(
    r"no space left on device|XMinioStorageFull|disk quota exceeded|NoSuchUpload", re.IGNORECASE
)


def is_full(error: BaseException) -> bool:
    """Whether an error of a transfer means that the store, or the server's own disk, has no room."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return True
    response: dict[str, Any] = getattr(error, "response", None) or {}
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    return metadata.get("HTTPStatusCode") == INSUFFICIENT_STORAGE or bool(_FULL.search(str(error)))


def tell_when_full(app: FastAPI) -> None:
    """Answer such errors, which mlflow's artifact routes let through (mlflow.server.artifact_router, 3.17.2).

    Args:
        app: mlflow's application.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import ClientError
    from fastapi.responses import JSONResponse

    async def handler(_: Request, error: Exception) -> JSONResponse:
        if not is_full(error):
            raise error
        message = (
            "the artifact store is full, or lost the upload: nothing was stored; make room there (its log says more) "
            f"and log the artifact again ({error})"
        )
        return JSONResponse({"error_code": "RESOURCE_EXHAUSTED", "message": message}, INSUFFICIENT_STORAGE)

    for kind in (OSError, Boto3Error, ClientError):
        app.add_exception_handler(kind, handler)
