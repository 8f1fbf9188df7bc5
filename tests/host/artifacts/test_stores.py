"""Stores against a real directory and a real S3 server: the same promises, whatever holds the objects."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from artifacts import Store, StoreError, open_store
from artifacts.repository import RepositoryStore
from artifacts.s3 import s3_client
from develop.scratch.stock import tracking_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Serve a folder with MLflow's tracking server; yield the URL of its artifacts, and the folder."""
    root = tmp_path_factory.mktemp("proxied")
    (root / "artifacts").mkdir()
    with tracking_server(f"sqlite:///{root}/mlflow.db", str(root / "artifacts")) as url:
        yield f"{url}/api/2.0/mlflow-artifacts/artifacts", root / "artifacts"


@pytest.fixture(params=["path", "file", "s3", "repository"])
def store_and_folder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Path]:
    """Return an empty store of each kind, and the folder where its objects lie as files."""
    if request.param == "s3":
        bucket: Path = request.getfixturevalue("s3_bucket")
        folder = bucket / tmp_path.name
        return open_store(f"s3://bucket/{tmp_path.name}"), folder
    if request.param == "repository":
        # the one store beside S3 and a folder that MLflow itself can serve here, through its own client
        url, root = request.getfixturevalue("proxied")
        (root / tmp_path.name).mkdir()
        return RepositoryStore(f"{url}/{tmp_path.name}"), root / tmp_path.name
    folder = tmp_path / "artifacts with space"
    folder.mkdir()
    return open_store(str(folder) if request.param == "path" else folder.as_uri()), folder


def write(folder: Path, *keys: str) -> None:
    """Write files; into the S3 server through its own door, since it caches what it saw of the folder."""
    if folder.parent.name == "bucket":
        client = s3_client()
        for key in keys:
            client.put_object(Bucket="bucket", Key=f"{folder.name}/{key}", Body=key.encode())
        return
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(key.encode())


def keys_of(store: Store, prefix: str = "") -> set[str]:
    return {item.key for item in store.list(prefix)}


def test_a_listing_holds_every_object_below_the_folder_and_none_beside_it(
    store_and_folder: tuple[Store, Path],
) -> None:
    store, folder = store_and_folder
    write(folder, "1/a/artifacts/x", "1/a/artifacts/deep/y z ü", "1/ab/artifacts/x", "2/c")
    objects = {item.key: item for item in store.list()}
    assert set(objects) == {"1/a/artifacts/x", "1/a/artifacts/deep/y z ü", "1/ab/artifacts/x", "2/c"}
    assert objects["2/c"].size == 3
    modified = objects["2/c"].modified
    assert (modified is None) == isinstance(store, RepositoryStore)
    assert modified is None or abs(modified - time.time()) < 3600
    assert keys_of(store, "1/a") == keys_of(store, "1/a/") == {"1/a/artifacts/x", "1/a/artifacts/deep/y z ü"}
    assert set(store.folders()) == {"1", "2"}
    assert set(store.folders("1")) == {"a", "ab"}
    assert keys_of(store, "nowhere") == set()


def test_deleted_objects_are_gone_and_the_others_stay(store_and_folder: tuple[Store, Path]) -> None:
    store, folder = store_and_folder
    write(folder, *(f"1/run/artifacts/{number}" for number in range(1100)), "1/other/x")
    assert store.delete(item.key for item in list(store.list("1/run"))) == {}
    assert keys_of(store) == {"1/other/x"}
    assert store.delete(["1/run/artifacts/1", "never/there"]) == {}
    assert store.delete([]) == {}


@pytest.mark.parametrize("prefix", ["..", "../other", "1/../2", "/etc", "1//2", "./1"])
def test_a_prefix_that_could_leave_the_store_is_refused(
    store_and_folder: tuple[Store, Path], prefix: str
) -> None:
    store, _ = store_and_folder
    with pytest.raises(StoreError):
        list(store.list(prefix))


def test_a_symbolic_link_is_deleted_but_never_followed(tmp_path: Path) -> None:
    write(tmp_path, "outside/keep", "root/1/a")
    (tmp_path / "root/1/link").symlink_to(tmp_path / "outside")
    (tmp_path / "root/2").symlink_to(tmp_path / "outside")
    store = open_store(str(tmp_path / "root"))
    assert keys_of(store) == {"1/a", "1/link", "2"}
    with pytest.raises(StoreError, match="symbolic link"):
        list(store.list("2"))
    assert store.delete(["2/keep", "1/link", "../outside/keep"]).keys() == {"2/keep", "../outside/keep"}
    assert (tmp_path / "outside/keep").exists()
    assert not (tmp_path / "root/1/link").is_symlink()


def test_of_many_folders_those_that_are_not_there_are_known_and_a_link_is_not_one_of_them(
    tmp_path: Path,
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (elsewhere / "e").mkdir(parents=True)
    (root / "1/traces/a").mkdir(parents=True)
    (root / "1/traces/link").symlink_to(elsewhere)
    (root / "behind").symlink_to(elsewhere)
    (root / "file").write_text("x")
    traces = {f"1/traces/{name}/" for name in ("a", "b", "link", "c")}
    others = {"2/traces/d/", "2/traces/e/", "behind/e/", "behind/f/", "file/g/", "file/h/"}
    missing = open_store(str(root)).missing(traces | others)
    assert missing == {"1/traces/b/", "1/traces/c/", "2/traces/d/", "2/traces/e/", "file/g/", "file/h/"}


def test_empty_folders_are_removed_with_what_they_held(tmp_path: Path) -> None:
    write(tmp_path, "1/a/artifacts/deep/x", "1/b/x")
    store = open_store(str(tmp_path))
    store.delete(["1/a/artifacts/deep/x"])
    store.prune("1/a")
    assert {path.name for path in (tmp_path / "1").iterdir()} == {"b"}
    store.prune("1/b")
    assert (tmp_path / "1/b/x").exists()
    store.prune("")
    assert tmp_path.exists()


@pytest.mark.parametrize(
    "uri", ["", "mlflow-artifacts:/", "http://127.0.0.1:5555", "s3://", "nonsense://x", "file://other-host/x"]
)
def test_what_is_no_destination_is_refused_with_a_reason(uri: str) -> None:
    with pytest.raises(StoreError):
        open_store(uri)


def test_an_s3_server_that_is_not_there_is_an_error_for_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = open_store("s3://bucket")
    assert store.delete(["a", "b"]).keys() == {"a", "b"}
    with pytest.raises(StoreError, match="s3://bucket"):
        list(store.list())


def test_what_is_put_is_fetched_back_whole(store_and_folder: tuple[Store, Path], tmp_path: Path) -> None:
    store, _ = store_and_folder
    source, target = tmp_path / "source", tmp_path / "target"
    for size in (0, 5, 20_000_000):  # the last in several parts on S3
        source.write_bytes(os.urandom(1 << 16) * (size >> 16) + b"x" * (size & 0xFFFF))
        store.put(source, "1/a b/ö.bin", 1_600_000_000.0)
        fetched = store.fetch("1/a b/ö.bin", target)
        assert fetched is not None
        assert (fetched.size, fetched.sha256) == (size, hashlib.sha256(source.read_bytes()).hexdigest())
        assert target.read_bytes() == source.read_bytes()
        assert [(item.key, item.size) for item in store.list()] == [("1/a b/ö.bin", size)]
    assert store.fetch("1/nothing/here", target) is None


def test_nothing_is_put_outside_the_destination(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path)
    store = open_store(str(tmp_path / "store"))
    for key in ("../outside", "/etc/outside", "link/outside", "link/folder/outside"):
        with pytest.raises(StoreError):
            store.put(tmp_path / "source", key, None)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "store"}
