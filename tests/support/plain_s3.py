"""An S3 server in memory that takes every key, as Amazon's does: rclone, which keeps files, takes those of paths."""

from __future__ import annotations

import threading
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHEN = "2020-01-01T00:00:00.000Z"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _key(self) -> str:
        return urllib.parse.unquote(self.path.partition("?")[0].removeprefix("/bucket").removeprefix("/"))

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.objects[self._key()] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_GET(self) -> None:
        if key := self._key():
            there = self.objects.get(key)
            missing = b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
            self._answer(200 if there is not None else 404, missing if there is None else there)
            return
        prefix = dict(urllib.parse.parse_qsl(self.path.partition("?")[2])).get("prefix", "")
        rows = "".join(
            f"<Contents><Key>{escape(urllib.parse.quote(key))}</Key><Size>{len(body)}</Size>"
            f"<LastModified>{_WHEN}</LastModified></Contents>"
            for key, body in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        text = (
            "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
            f"{rows}</ListBucketResult>"
        )
        self._answer(200, text.encode())


@contextmanager
def plain_s3() -> Iterator[dict[str, bytes]]:
    """Serve ``s3://bucket`` and set what MLflow reads to find it; yield its objects by key."""
    objects = dict[str, bytes]()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"objects": objects}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for name, value in {
            "AWS_ACCESS_KEY_ID": "access-key",
            "AWS_SECRET_ACCESS_KEY": "secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        yield objects
    server.shutdown()
    server.server_close()
