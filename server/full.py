"""A full artifact store is told to the client as such: 507, which it does not try again, instead of 500."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import disks

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

INSUFFICIENT_STORAGE = 507
# What MinIO and its forks say, and what rclone answers when the client library asks again after a multipart upload
# could not be put together for want of room.
_FULL = re.compile("XMinioStorageFull|NoSuchUpload", re.IGNORECASE)


def is_full(error: BaseException) -> bool:
    """Whether an error of a transfer means that the store, or the server's own disk, has no room."""
    if disks.is_full(error):
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
        what = "the artifact store is full, or lost the upload"
        if not disks.has_room(
            Path(tempfile.gettempdir())
        ):  # mlflow keeps an upload there before it passes it on
            what = "the server's folder of temporary files (TMPDIR) is full"
        message = (
            f"{what}: nothing was stored; make room there (its log says more) "
            f"and log the artifact again ({error})"
        )
        return JSONResponse({"error_code": "RESOURCE_EXHAUSTED", "message": message}, INSUFFICIENT_STORAGE)

    for kind in (OSError, Boto3Error, ClientError):
        app.add_exception_handler(kind, handler)
