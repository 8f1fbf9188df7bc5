"""An upload to a local folder is answered when it is on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from process.asgi import respond
from server.durable import SyncedUploads, local_folder, sync_file_system

if TYPE_CHECKING:
    from process.asgi import Message, Receive, Send

UPLOAD = "/api/2.0/mlflow-artifacts/artifacts/0/file"


def ask(layer: SyncedUploads, *requests: tuple[str, str]) -> list[int]:
    """Make requests at the same time: the answers' status codes."""

    async def one(method: str, path: str) -> int:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        await layer({"type": "http", "method": method, "path": path}, receive, send)
        status: int = sent[0]["status"]
        return status

    async def all_of_them() -> list[int]:
        return list(await asyncio.gather(*(one(*request) for request in requests)))

    return asyncio.run(all_of_them())


def layer(synced: list[Path], status: int = 200, prefix: str = "") -> SyncedUploads:
    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await respond(send, status, {})

    return SyncedUploads(app, Path("/data"), prefix=prefix, sync=synced.append)


@pytest.mark.parametrize(
    ("method", "path", "times"),
    [
        ("PUT", UPLOAD, 1),
        ("PUT", UPLOAD.replace("/api/", "/ajax-api/"), 1),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact", 1),
        ("GET", UPLOAD, 0),
        ("POST", "/api/2.0/mlflow/runs/log-batch", 0),
    ],
)
def test_an_upload_is_written_to_disk(method: str, path: str, times: int) -> None:
    synced: list[Path] = []
    assert ask(layer(synced), (method, path)) == [200]
    assert synced == [Path("/data")] * times
    assert ask(layer(synced, prefix="/ml"), (method, f"/ml{path}")) == [200]
    assert len(synced) == 2 * times


def test_a_refused_upload_is_not() -> None:
    synced: list[Path] = []
    assert ask(layer(synced, status=507), ("PUT", UPLOAD)) == [507]
    assert not synced


def test_uploads_that_wait_at_the_same_time_share_one() -> None:
    synced: list[Path] = []
    assert ask(layer(synced), *[("PUT", UPLOAD)] * 20) == [200] * 20
    assert len(synced) <= 2


def test_an_upload_that_could_not_be_written_is_not_acknowledged() -> None:
    def fails(_folder: Path) -> None:
        raise OSError(5, "Input/output error")

    subject = layer([])
    subject.write = fails
    with pytest.raises(OSError, match="Input/output"):
        ask(subject, ("PUT", UPLOAD))


def test_a_folder_that_is_not_there_yet_is_no_matter(tmp_path: Path) -> None:
    sync_file_system(tmp_path / "not" / "yet")


@pytest.mark.parametrize(
    ("destination", "folder"),
    [
        ("/data", "/data"),
        ("file:///data", "/data"),
        ("s3://bucket", None),
        ("", None),
        ("./x", str(Path("x").absolute())),
    ],
)
def test_where_artifacts_lie_here(destination: str, folder: str | None) -> None:
    assert local_folder(destination) == (Path(folder) if folder else None)
