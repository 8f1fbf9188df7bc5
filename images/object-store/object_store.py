"""rclone's S3 server with the contract of docker.io/pgsty/silo: what the object-store image runs.

``object-store server /data [--address :9000]`` serves the folder; each bucket is a folder in it. The keys
come from files, and reach rclone through its environment alone:

- ``MINIO_ROOT_USER_FILE`` and ``MINIO_ROOT_PASSWORD_FILE`` (or the same without ``_FILE``): the owner's key.
  A name without a folder is one below ``/run/secrets``, as there.
- ``MLFLOW_S3_KEYS_FILE``: further keys, as an AWS shared credentials file: each profile is one. The file that
  MLflow gets as ``AWS_SHARED_CREDENTIALS_FILE`` can be given here as it is. rclone knows no policies: every
  key opens every bucket.

It answers an upload when it is on disk (durable.py): rclone listens on a socket of its own, behind that.

``object-store healthcheck ready`` exits 0 when the server answers and its folder can be written.
"""

import argparse
import configparser
import contextlib
import csv
import ctypes
import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the image runs this with -I

import durable

SECRETS = Path("/run/secrets")
PORT = 9000
STARTS_WITHIN = 60  # seconds
SHORTEST_KEY = 3  # rclone refuses every request of a shorter one without a word


def fail(message: str, *hints: str) -> NoReturn:
    """Say what is wrong and exit with 1."""
    sys.exit("\n  ".join((f"error: {message}", *hints)))


def read(name: str) -> str:
    """A setting from the file that ``<name>_FILE`` names, else from the variable itself."""
    named = os.environ.get(f"{name}_FILE")
    if not named:
        return os.environ.get(name, "")
    path = SECRETS / named  # an absolute path stands for itself
    try:
        return path.read_text().strip()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}", f"{name}_FILE names it; this runs as uid {os.getuid()}")


def keys() -> list[tuple[str, str]]:
    """Every access key and its secret."""
    pairs = [(read("MINIO_ROOT_USER"), read("MINIO_ROOT_PASSWORD"))]
    named = os.environ.get("MLFLOW_S3_KEYS_FILE")
    if named:
        path = SECRETS / named
        profiles = configparser.RawConfigParser(default_section="")
        try:
            profiles.read_string(path.read_text())
            rows = [profiles[name] for name in profiles.sections()]
            pairs += [(row["aws_access_key_id"], row["aws_secret_access_key"]) for row in rows]
        except OSError as error:
            fail(f"cannot read {path}: {error.strerror}", "MLFLOW_S3_KEYS_FILE names it")
        except (configparser.Error, KeyError):
            fail(f"{path} is no AWS shared credentials file", "MLFLOW_S3_KEYS_FILE names it")
    pairs = [pair for pair in pairs if any(pair)]
    if not pairs:
        fail(
            "no keys: the store would be open to all", "set MINIO_ROOT_USER_FILE and MINIO_ROOT_PASSWORD_FILE"
        )
    for access, secret in pairs:
        if len(access) < SHORTEST_KEY or not secret or set('",\n') & set(access + secret):
            fail("a key is empty, too short, or holds a comma or a quotation mark", f"access key: {access!r}")
    return pairs


def as_list(pairs: list[tuple[str, str]]) -> str:
    """Several keys as rclone reads them from one variable: a CSV record of ``access,secret`` fields."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="").writerow([",".join(pair) for pair in pairs])
    return text.getvalue()


@contextlib.contextmanager
def rclone(folder: str, listening: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run rclone's S3 server on `folder`, listening on a socket, from when it does until the end of the block."""
    names = ("PATH", "HOME", "LANG", "TZ")
    environment = {
        name: value for name, value in os.environ.items() if name in names or name.startswith("RCLONE_")
    }
    environment["RCLONE_AUTH_KEY"] = as_list(keys())
    command = ["rclone", "serve", "s3", f"--addr=unix://{listening}", "--config=/dev/null", folder]
    with subprocess.Popen(command, env=environment, preexec_fn=_die_with_parent) as process:  # noqa: PLW1509 (no thread yet)
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while not _accepts(listening):
                if process.poll() is not None or time.monotonic() > deadline:
                    fail("rclone does not start", "the lines above say why")
                time.sleep(0.02)
            yield process
        finally:
            process.terminate()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG of prctl(2)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def listen(address: str) -> socket.socket:
    """Listen on ``host:port``; without a host, on all addresses of this machine."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=128, dualstack_ipv6=both)
    except OSError as error:
        fail(f"cannot listen on {address}: {error.strerror}")


def server(folder: str, address: str) -> NoReturn:
    """Serve `folder` until SIGTERM."""
    if not os.access(folder, os.W_OK):
        fail(f"cannot write {folder}", f"its volume must belong to uid {os.getuid()}")
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, lambda *_: sys.exit(0))
    ending = threading.Event()
    with (
        listen(address) as listening,
        tempfile.TemporaryDirectory(prefix="object-store-") as name,
        rclone(folder, Path(name) / "socket") as process,
    ):

        def watch() -> None:
            process.wait()
            if not ending.is_set():
                os._exit(1)  # whoever supervises this starts both again

        threading.Thread(target=watch, daemon=True).start()
        try:
            durable.Layer(Path(name) / "socket", durable.Disk(Path(folder))).serve(listening)
        finally:
            ending.set()


def ready(folder: str) -> int:
    """The exit code of the health check. A server that works answers a request without a key 4xx."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request("GET", "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer on port {PORT}: {error}")
        return 1
    print(f"answers {status}")
    return 0 if status < http.client.INTERNAL_SERVER_ERROR and os.access(folder, os.W_OK) else 1


def main() -> int:
    """Read the command line, which is silo's."""
    parser = argparse.ArgumentParser(prog="object-store")
    verbs = parser.add_subparsers(dest="verb", required=True)
    serve = verbs.add_parser("server", help="serve a folder over S3")
    serve.add_argument("folder", nargs="?", default="/data")
    serve.add_argument("--address", default=f":{PORT}")
    serve.add_argument("--console-address", help="accepted and ignored: there is no console")
    check = verbs.add_parser("healthcheck", help="exit 0 when the server is ready")
    check.add_argument("state", nargs="?", choices=["ready", "live"], default="ready")
    given = parser.parse_args()
    if given.verb == "healthcheck":
        return ready("/data")
    server(given.folder, given.address)


if __name__ == "__main__":
    sys.exit(main())
