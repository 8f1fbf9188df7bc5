"""A small MinIO: the S3 calls and the admin API (``/minio/admin/v3``) that `services.bucket` needs.

What the real one does: requests are signed (AWS Signature Version 4), the admin API's bodies are encrypted with the
secret of whoever calls (github.com/minio/madmin-go, encrypt.go; minio.crypto here), only the root user may call it, and
a user may do what its policy allows.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import io
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from minio.crypto import DecryptReader

if TYPE_CHECKING:
    from collections.abc import Iterator

ADMIN = "/minio/admin/v3/"


@dataclass
class Minio:
    """What the server knows, and what was asked of it.

    Attributes:
        root: name and secret of the root user.
        port: where it listens on 127.0.0.1.
        users: secret by name.
        policies: documents by name.
        attached: name of the policy by user.
        buckets: objects by key, by bucket.
        calls: the admin calls, in order.
        refusal: status that the admin API answers to everything; 0 to do its work.
    """

    root: tuple[str, str]
    port: int
    users: dict[str, str] = field(default_factory=dict)
    policies: dict[str, Any] = field(default_factory=dict)
    attached: dict[str, str] = field(default_factory=dict)
    buckets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    refusal: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def secret(self, user: str) -> str:
        return dict([self.root, *self.users.items()]).get(user, "")

    def allows(self, user: str, path: str) -> bool:
        """Whether a user's policy covers a bucket, or an object in it."""
        if user == self.root[0]:
            return True
        policy = self.policies.get(self.attached.get(user, ""), {"Statement": []})
        arn = f"arn:aws:s3:::{path.strip('/')}"
        return any(
            statement["Effect"] == "Allow"
            and "s3:*" in statement["Action"]
            and any(fnmatch.fnmatchcase(arn, pattern) for pattern in statement["Resource"])
            for statement in policy["Statement"]
        )

    def administer(self, command: str, asked: dict[str, str], body: bytes) -> int:
        """Do what the root user asks for; the status to answer."""
        self.calls.append(command)
        if self.refusal:
            return self.refusal
        if command == "add-canned-policy":
            self.policies[asked["name"]] = json.loads(body)
        elif command == "add-user":
            self.users[asked["accessKey"]] = json.loads(_decrypted(body, self.root[1]))["secretKey"]
        elif command == "set-user-or-group-policy":
            if asked["policyName"] not in self.policies or asked["userOrGroup"] not in self.users:
                return 404
            self.attached[asked["userOrGroup"]] = asked["policyName"]
        else:
            return 501
        return 200

    def store(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """One S3 call; the status and what to answer."""
        bucket, _, key = path.strip("/").partition("/")
        if not key and method == "PUT":
            self.buckets.setdefault(bucket, {})
            return 200, b""
        if bucket not in self.buckets:
            return 404, b""
        objects = self.buckets[bucket]
        if not key:
            return 200, b"<ListBucketResult></ListBucketResult>" if method == "GET" else b""
        if method == "PUT":
            objects[key] = body
        elif method == "DELETE":
            return 204, objects.pop(key, b"")[:0]
        return 200, objects[key] if method == "GET" else b""


class _Whole(io.BytesIO):
    """A response for minio's reader, which also gives its connection back."""

    def release_conn(self) -> None:
        """There is none."""


def _decrypted(body: bytes, secret: str) -> bytes:
    with DecryptReader(_Whole(body), secret.encode()) as reader:  # type: ignore[arg-type]
        return b"".join(reader.stream())


def _signer(request: BaseHTTPRequestHandler, minio: Minio) -> str | None:
    """The user whose signature a request carries, or None if it is not right (AWS Signature Version 4)."""
    words = request.headers.get("Authorization", "").partition(" ")[2].split(",")
    given = dict(word.strip().partition("=")[::2] for word in words)
    user, *scope = given.get("Credential", "").split("/")
    url = urlsplit(request.path)
    names = given.get("SignedHeaders", "").split(";")
    digest = request.headers.get("x-amz-content-sha256", "")
    canonical = [
        *(request.command, url.path, "&".join(sorted(url.query.split("&")))),
        *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
        *("", ";".join(names), digest),
    ]
    hashed = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    message = "\n".join(("AWS4-HMAC-SHA256", request.headers.get("x-amz-date", ""), "/".join(scope), hashed))
    key = f"AWS4{minio.secret(user)}".encode()
    for part in (*scope, message):
        key = hmac.digest(key, part.encode(), "sha256")
    return user if minio.secret(user) and hmac.compare_digest(key.hex(), given.get("Signature", "")) else None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        minio, url = self.server.minio, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        user, status, content = _signer(self, minio), 403, b""
        if url.path.startswith(ADMIN) and user == minio.root[0]:
            status = minio.administer(url.path.removeprefix(ADMIN), dict(parse_qsl(url.query)), body)
        elif user and minio.allows(user, path := unquote(url.path)):
            status, content = minio.store(self.command, path, body)
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_DELETE = _answer  # noqa: N815 (the base class' names)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class' name)
        """Keep quiet."""


class _Server(ThreadingHTTPServer):
    minio: Minio


@contextmanager
def serve(minio: Minio) -> Iterator[None]:
    """Answer for as long as the block lasts."""
    with _Server(("127.0.0.1", minio.port), _Handler) as server:
        server.minio = minio
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
