"""The same data set twice (SQLite and a local directory, PostgreSQL and S3), made once and copied per test."""

from __future__ import annotations

import itertools
import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from artifacts import open_store
from develop.scratch import servers, stock
from tests.support import world as made
from tests.support.cleaned import World
from tests.support.small import Small

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    with servers.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Serve the bucket ``bucket``; the environment that finds it is set for the whole session."""
    root = tmp_path_factory.mktemp("s3")
    (root / "bucket").mkdir()
    with stock.s3_server(root) as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield env


@pytest.fixture(scope="session")
def local_original(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("original")
    uri, destination = f"sqlite:///{folder}/mlflow.db", folder / "artifacts"
    destination.mkdir()
    with stock.tracking_server(uri, str(destination)) as url:
        ids = made.Builder(url).build()
    return World(uri, str(destination), ids, made.read_all_live(uri, [None]), [None])


@pytest.fixture(scope="session")
def s3_original(postgres: servers.Postgres, s3: dict[str, str]) -> World:
    uri, destination = postgres.create("original"), "s3://bucket/original"
    with stock.tracking_server(uri, destination, s3, workspaces=True) as url:
        builder = made.Builder(url)
        builder.mlflow.set_workspace("default")
        ids = builder.build()
        builder.build_workspace()
    made.leave_workspace()
    workspaces: list[str | None] = ["default", "team"]
    return World(uri, destination, ids, made.read_all_live(uri, workspaces), workspaces, s3)


@contextmanager
def local_copy(original: World, folder: Path) -> Iterator[World]:
    """Copy the data set in SQLite and a local directory into a folder that is empty."""
    shutil.copy(original.uri.removeprefix("sqlite:///"), folder / "mlflow.db")
    shutil.copytree(original.destination, folder / "artifacts")
    yield replace(original, uri=f"sqlite:///{folder}/mlflow.db", destination=str(folder / "artifacts"))


def copy_objects(source: str, target: str) -> None:
    from artifacts.s3 import s3_client

    client = s3_client()
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    for item in open_store(source).list():
        client.copy_object(
            Bucket=bucket,
            CopySource={"Bucket": bucket, "Key": f"{prefix}/{item.key}"},
            Key=f"{target.removeprefix('s3://').partition('/')[2]}/{item.key}",
        )


@contextmanager
def s3_copy(original: World, postgres: servers.Postgres) -> Iterator[World]:
    """Copy the data set in PostgreSQL and S3."""
    name = f"copy{next(_numbers)}"
    # MLflow's stores in this process keep connections open
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'original'")
    postgres.sql(f'CREATE DATABASE "{name}" TEMPLATE original')
    destination = f"s3://bucket/{name}"
    copy_objects(original.destination, destination)
    yield replace(original, uri=postgres.uri(name), destination=destination)
    postgres.sql(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def local_world(local_original: World, tmp_path: Path) -> Iterator[World]:
    """Return a copy of the data set in SQLite and a local directory."""
    with local_copy(local_original, tmp_path) as world:
        yield world


@pytest.fixture
def s3_world(s3_original: World, postgres: servers.Postgres) -> Iterator[World]:
    """Return a copy of the data set in PostgreSQL and S3."""
    with s3_copy(s3_original, postgres) as world:
        yield world


@pytest.fixture(params=["sqlite-local", "postgresql-s3"])
def world(request: pytest.FixtureRequest) -> World:
    """Return a copy of each data set."""
    name = "local_world" if request.param == "sqlite-local" else "s3_world"
    chosen: World = request.getfixturevalue(name)
    return chosen


@pytest.fixture(params=["sqlite-local", "postgresql-s3"])
def fresh_worlds(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[], AbstractContextManager[World]]:
    """Ask for a copy of the same data set as often as you like."""
    if request.param == "postgresql-s3":
        return lambda: s3_copy(request.getfixturevalue("s3_original"), request.getfixturevalue("postgres"))

    def local() -> AbstractContextManager[World]:
        folder = tmp_path / str(next(_numbers))
        folder.mkdir()
        return local_copy(request.getfixturevalue("local_original"), folder)

    return local


@pytest.fixture
def new_database(postgres: servers.Postgres) -> Callable[[], str]:
    """Ask for the URI of an empty PostgreSQL database."""
    return lambda: postgres.create(f"empty{next(_numbers)}")


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite database of the installed MLflow's schema, with nothing in it."""
    folder = tmp_path_factory.mktemp("empty")
    _make_tables(f"sqlite:///{folder}/mlflow.db", folder)
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def empty_postgresql(postgres: servers.Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of a PostgreSQL database like `empty_sqlite`, to be a template."""
    _make_tables(postgres.create("tables"), tmp_path_factory.mktemp("empty"))
    return "tables"


def _make_tables(uri: str, folder: Path) -> None:
    import mlflow.store.tracking.sqlalchemy_store as module

    tracking: Any = module
    tracking.SqlAlchemyStore(uri, str(folder))._dispose_engine()


@pytest.fixture
def small(empty_sqlite: Path, tmp_path: Path) -> Iterator[Small]:
    """A SQLite store and a folder of their own, with MLflow's own schema and nothing in it."""
    small = Small(empty_sqlite, tmp_path / "one")
    yield small
    small.close()
