"""A quick stand-in for every program that a stack starts, run with the words of the real one.

It keeps the one promise that a rotation of secrets lives by: what a store was closed with last must be given, as the
value now or the one before, to open it; otherwise the service fails. Files beside it hold what that was.
"""

from __future__ import annotations

import http.server
import itertools
import json
import os
import socket
import socketserver
import sys
from pathlib import Path

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # PostgreSQL manual, "Message Formats"


def main(words: list[str]) -> int:
    """Be the service that `words` ask for."""
    flags = dict(itertools.pairwise(words))
    if "server" in words and "-m" in words:  # the tracking server
        passphrase = os.environ.get("MLFLOW_CRYPTO_KEK_PASSPHRASE", "")
        before = os.environ.get("_MLFLOW_STACKS_PREVIOUS_PASSPHRASE_FILE")
        if not reopen("passphrase", passphrase, Path(before).read_text() if before else ""):
            return 3
        serve(int(os.environ["MLFLOW_PORT"]))
    elif "gateway" in words:
        serve(int(flags["--port"]))
    elif "services.postgres" in words:
        Path(flags["--data"]).mkdir(parents=True, exist_ok=True)
        if not place("superuser").exists():  # the cluster is new
            place("superuser").write_text(Path(flags["--password-file"]).read_text().strip())
        serve(int(flags["--port"]))
    elif "services.role" in words:
        names = ("--owner-password-file", "--previous-owner-password-file")
        return 0 if reopen("superuser", *(Path(flags[name]).read_text().strip() for name in names)) else 1
    elif "--address" in words:  # the object store
        serve(int(flags["--address"].rpartition(":")[2]))
    elif "services.smoke" in words:
        print(json.dumps({"url": "", "old_run": "", "seconds": 0.0}))
    return 0  # a step that is done


def place(name: str) -> Path:
    """Where it is kept what something was closed with last."""
    return Path(__file__).with_name(f"closed-with-{name}")


def reopen(name: str, now: str, before: str) -> bool:
    """Open what was closed with one of two values, and close it with the first."""
    kept = place(name)
    if kept.exists() and kept.read_text() not in {now, before}:
        print(f"{name}: closed with another value than the two that are given", file=sys.stderr)
        return False
    fresh = kept.with_suffix(".new")
    fresh.write_text(now)
    fresh.replace(kept)
    return True


def serve(port: int) -> None:
    """Answer every request as a service that is ready."""

    class Ready(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            if self.connection.recv(8, socket.MSG_PEEK).startswith(SSL_REQUEST):
                self.connection.sendall(b"N")  # as PostgreSQL says that it has no TLS
            else:
                super().handle()

        def do_GET(self) -> None:
            body = json.dumps({"status": "ready", "version": "stand-in"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    Server(("127.0.0.1", port), Ready).serve_forever()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
