"""A small provider that speaks OpenAI's API, for the gateways to call."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "provider-key-of-the-test"
WORDS = ("Hel", "lo ", "there")


class Handler(BaseHTTPRequestHandler):
    """Answers chat (streamed or not) and embeddings, and refuses any key but `KEY`."""

    protocol_version = "HTTP/1.1"
    key = KEY

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer one call."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {self.key}":
            self.answer(401, {"error": {"message": "wrong key", "type": "invalid_request_error"}})
        elif self.path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            self.answer(200, {"object": "list", "model": body["model"], "data": data, "usage": usage})
        elif body.get("stream"):
            self.stream(body["model"])
        else:
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
            identity = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
            self.answer(200, {**identity, "choices": [choice], "usage": usage})

    def answer(self, status: int, body: object) -> None:
        """Send one JSON answer."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self, model: str) -> None:
        """Send the words one by one, as server-sent events."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        identity = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": model}
        for word in (*WORDS, None):
            delta = {"role": "assistant", "content": word} if word else {}
            choice = {"index": 0, "delta": delta, "finish_reason": None if word else "stop"}
            self.wfile.write(f"data: {json.dumps({**identity, 'choices': [choice]})}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


@contextmanager
def provider(host: str = "127.0.0.1") -> Iterator[str]:
    """Serve on a free port of an address of this machine; gives the base URL for ``openai_api_base``."""
    server = ThreadingHTTPServer((host, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
