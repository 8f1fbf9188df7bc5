"""A data set that a test cleans up: where it is, what is in it, and what must stay."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from artifacts import open_store
from cleanup.__main__ import main
from database.ownership import MARK
from tests.support import answers
from tests.support import world as made

if TYPE_CHECKING:
    from sqlalchemy import Engine


@dataclass
class World:
    """A data set of a test's own: where it is, the ids by name, and what was alive in it at first."""

    uri: str
    destination: str
    ids: dict[str, str]
    live: dict[str, Any]
    workspaces: list[str | None]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        return made.engine_for(self.uri)

    def cleanup(self, *flags: str, code: int = 0) -> dict[str, Any]:
        """Run ``python -m cleanup --json`` in this process and return its answer."""
        out = io.StringIO()
        argv = [
            "--backend-store-uri",
            self.uri,
            "--artifacts-destination",
            self.destination,
            "--json",
            *flags,
        ]
        with contextlib.redirect_stdout(out):
            try:
                result = main(argv)
            except SystemExit as stopped:
                result = int(stopped.code or 0)
        assert result == code, out.getvalue()
        return answers.read("cleanup", out.getvalue()) if out.getvalue() else {}

    def objects(self, prefix: str = "") -> set[str]:
        return {item.key for item in open_store(self.destination).list(prefix)}

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Return the first column of what a query finds."""
        from sqlalchemy import text

        with self.engine.connect() as connection:
            return list(connection.execute(text(query), values).scalars())

    def sql(self, statement: str, **values: Any) -> None:
        from sqlalchemy import text

        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def runs(self) -> set[str]:
        """Return the names of the runs that are still there."""
        there = set(self.rows("SELECT run_uuid FROM runs"))
        return {name for name, entity in self.ids.items() if entity in there}

    def read_live(self) -> dict[str, Any]:
        return made.read_all_live(self.uri, self.workspaces)

    def assert_whole(self) -> None:
        """Assert the invariants: what was alive is unchanged, and nothing points at nothing."""
        assert self.read_live() == self.live
        assert made.dangling(self.engine) == {}

    def assert_owned(self) -> None:
        """Assert that every object belongs to something in the database."""
        owners = made.owner_ids(self.engine)
        strays = {key for key in self.objects() if not any(part in owners for part in key.split("/"))}
        assert strays <= {MARK}
