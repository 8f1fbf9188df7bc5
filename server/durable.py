"""What is acknowledged is on disk: artifacts in a local folder.

What SQLite commits is seen to by `database.sqlitefile.sync_commits`. PostgreSQL writes its log to disk before it
answers (``fsync`` and ``synchronous_commit`` are on by default), and an object store answers for its own objects.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from process.asgi import App, Message, Receive, Send


class SyncedUploads:
    """Answer an upload of an artifact once the file system of the local artifact folder is on disk.

    mlflow's repository for local folders copies files and calls no fsync (mlflow.store.artifact.local_artifact_repo).
    One syncfs(2) covers file, folder and all uploads that wait for it at the same time.

    Args:
        app: mlflow's application.
        folder: where artifacts lie; it need not exist yet.
        prefix: the static prefix, or "".
        sync: writes a folder's file system to disk.
    """

    def __init__(
        self, app: App, folder: Path, *, prefix: str = "", sync: Callable[[Path], None] | None = None
    ) -> None:
        self.app = app
        self.folder = folder
        self.write = sync or sync_file_system
        root = re.escape(prefix) + "/(?:ajax-)?api/"
        uploads = r"2\.0/mlflow-artifacts/artifacts/.*|2\.0/mlflow/upload-artifact"
        self._uploads = re.compile(root + f"(?:{uploads})", re.DOTALL)
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if (
            scope["type"] != "http"
            or scope["method"] not in {"PUT", "POST"}
            or not self._uploads.fullmatch(scope["path"])
        ):
            await self.app(scope, receive, send)
            return

        async def synced(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                await self._sync()
            await send(message)

        await self.app(scope, receive, synced)

    async def _sync(self) -> None:
        """Return once all that was written before the call is on disk."""
        if self._next is None:  # one that runs already may have passed over what was just written
            self._next = asyncio.create_task(self._after(self._running))
        await asyncio.shield(self._next)

    async def _after(self, running: asyncio.Task[None] | None) -> None:
        if running:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        await asyncio.to_thread(self.write, self.folder)


def sync_file_system(folder: Path) -> None:
    """Write the file system of a folder, or of its nearest parent that is there, to disk.

    Raises:
        OSError: something could not be written.
    """
    while not folder.exists():
        folder = folder.parent
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):  # macOS
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)


def local_folder(destination: str) -> Path | None:
    """The folder of an artifact destination; None where it is none of this machine's."""
    path = destination.removeprefix("file://")
    return None if "://" in path or not path else Path(path).absolute()
