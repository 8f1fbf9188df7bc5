"""The two kinds of database behind one protocol: whoever works on one asks it here, and not what kind it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import URL, Engine

    from console import UserError
    from database.language import Language
    from database.lock import Lock
    from database.others import Others


class Dialect(Protocol):
    """A database of one kind."""

    #: As SQLAlchemy and the manifests of backup sets call it.
    kind: ClassVar[str]

    def __init__(self, engine: Engine) -> None: ...

    @property
    def engine(self) -> Engine:
        """The engine to it."""
        ...

    @staticmethod
    def file(url: URL) -> Path | None:
        """Return the file that a database is; None where a server keeps it."""
        ...

    @classmethod
    def open(cls, url: URL, *, create: bool, foreign_keys: bool, lock_timeout: int, schema: str) -> Engine:
        """Return an engine whose database need not have answered; see `database.connection.connect`."""
        ...

    def knock(self) -> None:
        """Have the database answer.

        Raises:
            DBAPIError: it does not, or says that it cannot be used; `explain` tells why.
        """
        ...

    @staticmethod
    def explain(refusal: str, url: URL) -> UserError:
        """Turn a driver's first refusal into what is wrong and what to type next."""
        ...

    @property
    def language(self) -> Language:
        """How it is spoken to."""
        ...

    def rows(self) -> dict[str, int]:
        """Return the number of rows of every table of MLflow's."""
        ...

    def users(self) -> list[str]:
        """Return who else uses the database at this moment, a line each."""
        ...

    def others(self) -> Others:
        """Return what lies beside MLflow's tables."""
        ...

    def identity(self) -> dict[str, Any] | None:
        """Return what tells this database from every other; None where its kind has nothing such."""
        ...

    def size(self) -> int:
        """Return the bytes that the database takes on disk."""
        ...

    def has_room(self) -> bool:
        """Whether it could write more: a real write where its data lies, of which nothing stays.

        Raises:
            OSError: it cannot, for another reason than a full disk; or DBAPIError.
        """
        ...

    def vacuum(self, tables: list[str], patience: int) -> None:
        """Rewrite tables without the space of deleted rows.

        Args:
            tables: by name.
            patience: seconds to wait for somebody who uses one.

        Raises:
            DBAPIError: the disk is full, or somebody keeps a table; the data is as it was.
        """
        ...

    def lock(self, purpose: str, wait_seconds: float) -> AbstractContextManager[Lock]:
        """Hold the one maintenance lock of the database; see `maintenance_lock`."""
        ...

    def dump(
        self, stem: Path, last: Mapping[str, Any] | None, last_file: Path | None, pg_command: str | None
    ) -> dict[str, Any]:
        """Write the database into a file of a new backup set, consistent also while others write.

        Args:
            stem: the file, without the suffix that tells its kind.
            last: what this returned for the last set of the same database.
            last_file: its file, where that is at hand.
            pg_command: see `database.programs.find_programs`.

        Returns:
            The manifest's part: ``revision``, ``file``, ``bytes``, ``sha256``, ``rows``, and what its kind adds.

        Raises:
            UserError: it failed; says why.
        """
        ...

    def replace(
        self, source: Path, part: Mapping[str, Any], ready: Callable[[], None], pg_command: str | None
    ) -> None:
        """Replace MLflow's tables by those that `dump` wrote, in one transaction; what lies beside them stays.

        Args:
            source: the file, whose hash has been checked.
            part: what `dump` returned.
            ready: called before anything is final; what it raises undoes everything.
            pg_command: see `database.programs.find_programs`.

        Raises:
            UserError: it failed, and the database is as it was.
        """
        ...


def kind_of(url: URL) -> type[Dialect]:
    """Return what databases of an address are.

    Args:
        url: from `database.address.normalize`.
    """
    from database.postgresql import PostgreSQL
    from database.sqlite import SQLite

    kinds: dict[str, type[Dialect]] = {PostgreSQL.kind: PostgreSQL, SQLite.kind: SQLite}
    return kinds[url.get_backend_name()]


def dialect_of(engine: Engine) -> Dialect:
    """Return the database of an engine."""
    return kind_of(engine.url)(engine)


def maintenance_lock(engine: Engine, purpose: str, wait_seconds: float = 0) -> AbstractContextManager[Lock]:
    """Hold the one maintenance lock of a database inside a block.

    Args:
        engine: from `database.connection.connect`.
        purpose: what for, one word, shown to whoever finds the lock taken: ``migrate``, ``cleanup``.
        wait_seconds: how long to wait for another holder.

    Raises:
        UserError: another process holds it (says which, for what, since when), or it cannot be taken.
    """
    return dialect_of(engine).lock(purpose, wait_seconds)
