"""What stands in front of rclone: no upload is answered before it is on disk.

rclone's S3 server calls no fsync, and has no option for it. Each connection is passed on to it, byte by byte, and an
answer to an upload is held back until syncfs(2) has written the file system that the objects lie in; uploads that
wait at the same time share one. Whether that has room is asked at `ROOM`, without a key. Only Python's standard
library, for the image has nothing else.
"""

import ctypes
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

ROOM = "/-/room"  # no bucket can have the name "-"
LITTLE = 1 << 16  # bytes
CHUNK = 1 << 18  # bytes passed on at once
LONGEST_HEAD = 1 << 16  # bytes
IDLE = 50  # seconds that a connection may rest; rclone closes its end after 60
HEARD_OUT = 30  # seconds that a client gets to send the rest of what was refused
STALLED = 3600  # seconds that one read or write may take, as rclone has it
LIBC = ctypes.CDLL(None, use_errno=True)


class Disk:
    """The file system of a folder.

    Args:
        folder: any folder in it.
        write: writes all of it to disk; by default syncfs(2), where there is no such call sync(2).
    """

    def __init__(self, folder: Path, write: Callable[[int], None] | None = None) -> None:
        self.descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.write = write or _syncfs
        self._changed = threading.Condition()
        self._begun = self._ended = 0  # how many have
        self._running = False

    def full(self) -> bool:
        """Whether hardly anything more can be written."""
        status = os.statvfs(self.descriptor)
        free, total = (blocks * status.f_frsize for blocks in (status.f_bavail, status.f_blocks))
        return free < max(LITTLE, total // 1000) or (status.f_files > 0 and status.f_favail == 0)

    def sync(self) -> None:
        """Return once all that was written before the call is on disk.

        When that fails, nobody knows what was lost, and asking again would not tell (PostgreSQL panics likewise): the
        process ends, and no upload is acknowledged.
        """
        with self._changed:
            enough = self._begun + 1  # one that runs already may have passed over what was just written
            while self._ended < enough:
                if self._running:
                    self._changed.wait()
                    continue
                self._running, self._begun = True, self._begun + 1
                self._changed.release()
                try:
                    self.write(self.descriptor)
                except OSError as error:
                    print(f"error: cannot write the objects to disk: {error}", file=sys.stderr, flush=True)
                    os._exit(1)
                finally:
                    self._changed.acquire()
                self._running, self._ended = False, self._begun
                self._changed.notify_all()


def _syncfs(descriptor: int) -> None:
    if not hasattr(LIBC, "syncfs"):  # macOS
        os.sync()
    elif LIBC.syncfs(descriptor) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(frozen=True)
class Head:
    """The first lines of an HTTP/1.1 request or answer (RFC 9112).

    Attributes:
        raw: as they came.
        first: the words of the first line.
        fields: name, in lower case, to value.
    """

    raw: bytes
    first: list[str]
    fields: dict[str, str]

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.first[1])

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this."""
        old = "HTTP/1.0" in self.first
        return self.fields.get("connection", "close" if old else "").lower() == "close"

    def uploads(self) -> bool:
        """Whether a request stores something. A part of an upload counts for nothing before it is completed."""
        method, target = self.first[:2]
        query = target.partition("?")[2]
        if method == "PUT":
            return "uploadId=" not in query
        return method == "POST" and not query.startswith("delete")


def read_head(source: BufferedReader) -> Head | None:
    """Read the head of a message; None when there is no further one.

    Raises:
        ValueError: it is no HTTP.
    """
    lines: list[bytes] = []
    while not lines or lines[-1] not in {b"\r\n", b"\n"}:
        line = source.readline(LONGEST_HEAD)
        if not line and not lines:
            return None
        lines.append(line)
        if not line.endswith(b"\n") or sum(map(len, lines)) > LONGEST_HEAD:
            raise ValueError("the head of a message is cut off, or too long")
    first, *fields = (line.decode("latin-1").strip() for line in lines[:-1])
    pairs = (field.partition(":") for field in fields)
    return Head(b"".join(lines), first.split(" "), {name.lower(): value.strip() for name, _, value in pairs})


def pass_body(head: Head, source: BufferedReader, target: socket.socket, *, to_the_end: bool) -> None:
    """Pass on what follows a head.

    Args:
        head: says how long it is.
        source: where it is read from.
        target: where it goes.
        to_the_end: without a length, all that comes belongs to it (an answer); else nothing does (a request).
    """
    if "transfer-encoding" in head.fields:
        _pass_chunks(source, target)
        return
    left = int(head.fields.get("content-length", -1 if to_the_end else 0))
    while left:
        data = source.read1(CHUNK if left < 0 else min(left, CHUNK))
        if not data:
            if left > 0:
                raise ConnectionError("the body is cut off")
            return
        target.sendall(data)
        left -= len(data) if left > 0 else 0


def _pass_chunks(source: BufferedReader, target: socket.socket) -> None:
    size = -1
    while size:
        line = source.readline(LONGEST_HEAD)
        size = int(line.split(b";")[0], 16)
        target.sendall(line)
        left = size + 2 if size else 0
        while left:
            data = source.read1(min(left, CHUNK))
            if not data:
                raise ConnectionError("the body is cut off")
            target.sendall(data)
            left -= len(data)
    while (line := source.readline(LONGEST_HEAD)) not in {b"\r\n", b"\n", b""}:  # what trails it
        target.sendall(line)
    target.sendall(line)


def _hear_out(client: socket.socket) -> None:
    """Read what a client still sends, or closing would destroy the answer on its way to it (RFC 9112, section 9.6)."""
    client.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + HEARD_OUT
    while (left := deadline - time.monotonic()) > 0:
        client.settimeout(left)
        if not client.recv(CHUNK):
            return


class Layer:
    """Passes connections on.

    Args:
        store: the socket that rclone listens on.
        disk: where its objects lie.
    """

    def __init__(self, store: Path, disk: Disk) -> None:
        self.store = store
        self.disk = disk

    def serve(self, listening: socket.socket) -> NoReturn:
        """Accept connections for ever, each in a thread of its own."""
        while True:
            client, _ = listening.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as store:
            try:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                store.settimeout(STALLED)
                store.connect(str(self.store))
                with client.makefile("rb") as asked, store.makefile("rb") as answered:
                    while self._exchange(client, asked, store, answered):
                        pass
                _hear_out(client)
            except (OSError, ValueError):
                return  # either end has gone, or speaks no HTTP: closing is all that is left to say

    def _exchange(
        self, client: socket.socket, asked: BufferedReader, store: socket.socket, answered: BufferedReader
    ) -> bool:
        """Pass on one request and its answer: whether another may follow."""
        client.settimeout(IDLE)
        request = read_head(asked)
        if request is None:
            return False
        client.settimeout(STALLED)
        if request.first[:2] == ["GET", ROOM]:
            status = b"507 Insufficient Storage" if self.disk.full() else b"200 OK"
            client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            return not request.closes
        store.sendall(request.raw)
        answer: Head | None = None
        if "expect" in request.fields:  # the client sends its body when rclone says 100, or never
            answer = read_head(answered)
            if answer and answer.status == 100:
                client.sendall(answer.raw)
                answer = None
        whole = answer is None or request.fields.get("content-length") == "0"
        if answer is None:
            try:
                pass_body(request, asked, store, to_the_end=False)
            except (BrokenPipeError, ConnectionResetError):
                whole = False  # rclone refuses the rest; it has said why
            while (answer := read_head(answered)) and answer.status < 200:
                client.sendall(answer.raw)
        if answer is None:
            return False
        if answer.status < 300 and request.uploads():
            self.disk.sync()
        without_body = request.first[0] == "HEAD" or answer.status in {204, 304}
        has_end = without_body or bool({"content-length", "transfer-encoding"} & answer.fields.keys())
        goes_on = whole and has_end and not (request.closes or answer.closes)
        told = goes_on or answer.closes
        client.sendall(
            answer.raw if told else answer.raw.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"
        )
        if not without_body:
            pass_body(answer, answered, client, to_the_end=True)
        return goes_on
