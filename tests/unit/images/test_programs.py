"""The small programs inside the images: the health check and the object store's start."""

from __future__ import annotations

import csv
import http.server
import importlib.util
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from images import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

HEALTHCHECK = catalogue.FOLDER / "mlflow" / "healthcheck.py"


@pytest.fixture
def answering() -> Iterator[str]:
    """A server whose answer is the status that the path names."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def check(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(HEALTHCHECK), url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_health_check_passes_on_200_alone(answering: str) -> None:
    assert check(f"{answering}/200").returncode == 0
    failed = check(f"{answering}/503")
    assert failed.returncode == 1
    assert "503" in failed.stdout


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/ready", "http://127.0.0.1:port/ready", "nonsense://"])
def test_the_health_check_fails_without_a_traceback_where_nothing_answers(url: str) -> None:
    failed = check(url)
    assert failed.returncode == 1
    assert failed.stderr == ""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The object store's program, with none of its settings in the environment."""
    for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "MLFLOW_S3_KEYS"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    path = catalogue.FOLDER / "object-store" / "object_store.py"
    spec = importlib.util.spec_from_file_location("object_store", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_store_reads_its_keys_from_files(
    store: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "user").write_text("owner\n")
    (tmp_path / "password").write_text("s3cret=/+\n")
    (tmp_path / "keys").write_text("[default]\naws_access_key_id = app\naws_secret_access_key = other\n")
    monkeypatch.setenv("MINIO_ROOT_USER_FILE", str(tmp_path / "user"))
    monkeypatch.setenv("MINIO_ROOT_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("MLFLOW_S3_KEYS_FILE", str(tmp_path / "keys"))
    assert store.keys() == [("owner", "s3cret=/+"), ("app", "other")]
    assert next(csv.reader([store.as_list(store.keys())])) == ["owner,s3cret=/+", "app,other"]


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [
        ("", "", "open to all"),
        ("ab", "secret", "too short"),
        ("owner", "", "empty"),
        ("owner", "a,b", "comma"),
    ],
)
def test_the_store_does_not_start_with_keys_that_protect_nothing(
    store: ModuleType, monkeypatch: pytest.MonkeyPatch, user: str, password: str, said: str
) -> None:
    monkeypatch.setenv("MINIO_ROOT_USER", user)
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", password)
    with pytest.raises(SystemExit, match=said):
        store.keys()


def test_a_key_file_that_is_missing_or_no_credentials_file_is_named(
    store: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINIO_ROOT_USER_FILE", str(tmp_path / "absent"))
    with pytest.raises(SystemExit, match=r"cannot read .*absent"):
        store.keys()
    monkeypatch.delenv("MINIO_ROOT_USER_FILE")
    (tmp_path / "keys").write_text("nonsense")
    monkeypatch.setenv("MLFLOW_S3_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(SystemExit, match="no AWS shared credentials file"):
        store.keys()
