"""The databases that older MLflow versions wrote (tests/databases/make.py), brought back to life."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from develop.scratch.servers import Postgres

FOLDER = Path(__file__).parents[1] / "databases"
VERSIONS = ["2.0.1", "2.9.2", "2.16.2", "2.22.5", "3.1.4", "3.5.1", "3.10.1", "3.15.1"]


def script(version: str, kind: str) -> bytes:
    return gzip.decompress((FOLDER / f"{version}.{kind}.sql.gz").read_bytes())


def expected(version: str, kind: str) -> dict[str, Any]:
    """Return what that version's own client read from the database."""
    value: dict[str, Any] = json.loads(gzip.decompress((FOLDER / f"{version}.{kind}.json.gz").read_bytes()))
    return value


def sqlite_database(version: str, path: Path, *, wal: bool = False) -> str:
    """Make the SQLite file and return its URI."""
    connection = sqlite3.connect(path)
    connection.executescript(script(version, "sqlite").decode())
    if wal:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return f"sqlite:///{path}"


def postgresql_database(version: str, server: Postgres, name: str) -> str:
    """Make the PostgreSQL database and return its URI."""
    return server.create(name, script(version, "postgresql"))


def contained(before: Any, after: Any, where: str = "") -> list[str]:
    """Return what of `before` is not in `after`: migrations may add keys, never lose or change one."""
    if isinstance(before, dict):
        kept = [key for key in before if key in after]
        lost = [f"{where}/{key} is gone" for key in before if key not in after]
        return lost + [x for key in kept for x in contained(before[key], after[key], f"{where}/{key}")]
    return [] if before == after else [f"{where}: {before!r} became {after!r}"]


def statements(path: Path) -> str:
    """All that a SQLite file holds; MLflow's migrations make some indexes in no fixed order."""
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(sorted(connection.iterdump()))
