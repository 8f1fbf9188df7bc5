"""How the object store's uploads share a write to disk, and what counts as one."""

from __future__ import annotations

import importlib.util
import io
import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from images import catalogue

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture(scope="module")
def durable() -> ModuleType:
    path = catalogue.FOLDER / "object-store" / "durable.py"
    spec = importlib.util.spec_from_file_location("durable", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_uploads_that_wait_share_a_sync_that_began_after_they_came(
    durable: ModuleType, tmp_path: Path
) -> None:
    begun, may_end, count = threading.Event(), threading.Event(), []

    def slow(_descriptor: int) -> None:
        count.append(1)
        begun.set()
        assert may_end.wait(60)

    disk = durable.Disk(tmp_path, slow)
    first = threading.Thread(target=disk.sync)
    first.start()
    assert begun.wait(60)
    others = [threading.Thread(target=disk.sync) for _ in range(5)]
    for other in others:
        other.start()
    may_end.set()
    for thread in (first, *others):
        thread.join(60)
    assert (
        2 <= len(count) <= 6
    )  # the first one's was no use to the others; theirs was shared, as far as they met
    assert not any(thread.is_alive() for thread in others)


@pytest.mark.parametrize(
    ("line", "uploads"),
    [
        ("PUT /bucket/key HTTP/1.1", True),
        ("PUT /bucket/key?partNumber=1&uploadId=x HTTP/1.1", False),
        ("POST /bucket/key?uploadId=x HTTP/1.1", True),
        ("POST /bucket?delete HTTP/1.1", False),
        ("POST /bucket?delete= HTTP/1.1", False),
        ("GET /bucket/key HTTP/1.1", False),
        ("DELETE /bucket/key HTTP/1.1", False),
    ],
)
def test_what_counts_as_an_upload(durable: ModuleType, line: str, uploads: bool) -> None:
    head = durable.read_head(io.BytesIO(f"{line}\r\nHost: x\r\n\r\n".encode()))
    assert head.uploads() is uploads


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\nHost: x", b"x" * 100_000])
def test_a_head_that_is_cut_off_or_without_end_is_refused(durable: ModuleType, text: bytes) -> None:
    with pytest.raises(ValueError, match="cut off"):
        durable.read_head(io.BytesIO(text))


@pytest.mark.parametrize(("free", "status"), [(0, "507 Insufficient Storage"), (1000, "200 OK")])
def test_whether_there_is_room_is_told_without_a_key(
    durable: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str
) -> None:
    size = os.statvfs_result((4096, 4096, 1000, free, free, 10, 10, 10, 0, 255))
    monkeypatch.setattr(durable.os, "statvfs", lambda _descriptor: size)
    with socket.socket(socket.AF_UNIX) as rclone, socket.create_server(("127.0.0.1", 0)) as listening:
        rclone.bind(str(tmp_path / "socket"))
        rclone.listen()
        layer = durable.Layer(tmp_path / "socket", durable.Disk(tmp_path))
        threading.Thread(target=layer.serve, args=(listening,), daemon=True).start()
        with socket.create_connection(listening.getsockname()) as asking:
            asking.sendall(b"GET /-/room HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert asking.makefile().readline().strip() == f"HTTP/1.1 {status}"
