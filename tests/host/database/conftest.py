"""Databases for the tests of this folder: one PostgreSQL for all, a database or a file for each."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from develop.scratch import servers
from tests.support import old_databases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    with servers.postgres() as server:
        yield server


@pytest.fixture
def new_uri(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Ask for the URI of an empty database: ``new_uri("sqlite")`` or ``new_uri("postgresql")``."""

    def create(kind: str) -> str:
        number = next(_numbers)
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/database{number}.db"
        server: servers.Postgres = request.getfixturevalue("postgres")
        return server.create(f"test{number}")

    return create


@pytest.fixture
def old_database(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str, str], str]:
    """Ask for a database that an older MLflow wrote: ``old_database("2.9.2", "sqlite")`` returns its URI."""

    def create(version: str, kind: str) -> str:
        number = next(_numbers)
        if kind == "sqlite":
            return old_databases.sqlite_database(version, tmp_path / f"database{number}.db")
        server: servers.Postgres = request.getfixturevalue("postgres")
        return old_databases.postgresql_database(version, server, f"test{number}")

    return create


@pytest.fixture
def dump(postgres: servers.Postgres) -> Callable[[str], bytes]:
    """Ask for everything that a database holds: as pg_dump says it, or as SQLite's statements."""

    def everything(uri: str) -> bytes:
        if uri.startswith("postgresql"):
            return postgres.dump(uri.rpartition("/")[2])
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            return "\n".join(connection.iterdump()).encode()

    return everything
