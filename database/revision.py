"""Where a schema stands for the MLflow that is installed: empty, current, behind, ahead or unknown.

MLflow's revisions are read as text, not imported: its migration scripts import most of MLflow, which costs
seconds, and this runs before every start of a server.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy import inspect, text

from console import UserError
from database.tables import AUTH, AUTH_HEAD, AUTH_REVISION, HEAD, REVISION, has_auth, has_tracking

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

State = Literal["empty", "current", "behind", "ahead", "unknown"]

# what mlflow.store.tracking.dbmodels.initial_models creates before the first revision runs
INITIAL_TABLES = frozenset({"experiments", "runs", "tags", "metrics", "params"})


class Line(NamedTuple):
    """One line of revisions of MLflow's: the folder of its scripts in the package, and its table in a database."""

    folder: str
    table: str


MAIN = Line("store/db_migrations", REVISION)
BASIC_AUTH = Line("server/auth/db/migrations", AUTH_REVISION)
FIRST_OF_AUTH = "8606fa83a998"  # the revision of basic auth that has none (mlflow.server.auth.db.utils)

# Heads of released versions, so that a schema newer than the installed MLflow can be named.
RELEASED_HEADS = {
    "97727af70f4d": "2.0.1",
    "acf3f17fdcc7": "2.9.2",
    "4465047574b1": "2.16.2",
    "0584bdc529eb": "2.22.5",
    "bda7b8c39065": "3.1.4",
    "bf29a5ff90ea": "3.5.1",
    "1b5f0d9ad7c1": "3.10.1",
    "6f8d9c3b2a1e": "3.15.1",
    "dc11669786a5": "3.17.2",
}


@dataclass(frozen=True)
class Step:
    """One revision of MLflow's schema and its one-line title."""

    revision: str
    title: str


@dataclass(frozen=True)
class Schema:
    """The state of one database's schema.

    `pending` lists the revisions still to run, oldest first; `detail` says in a line what `state` means.
    """

    state: State
    revision: str | None
    head: str
    mlflow_version: str
    pending: tuple[Step, ...]
    detail: str

    def as_json(self) -> dict[str, object]:
        """Return the shape that ``--json`` shows."""
        return {
            "state": self.state,
            "revision": self.revision,
            "head": self.head,
            "mlflow_version": self.mlflow_version,
            "pending": [{"revision": step.revision, "title": step.title} for step in self.pending],
            "detail": self.detail,
        }


def mlflow_folder() -> Path:
    """Return the folder of the installed `mlflow` package, without importing it.

    Raises:
        UserError: MLflow is not installed.
    """
    spec = importlib.util.find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("MLflow is not installed in this Python", "to install it: pip install mlflow")
    return Path(next(iter(spec.submodule_search_locations)))


def mlflow_version() -> str:
    """Return the version of the installed MLflow, full or skinny."""
    for name in ("mlflow", "mlflow-skinny"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


@cache
def revisions(line: Line = MAIN) -> tuple[Step, ...]:
    """Return every revision of a line that the installed MLflow knows, oldest first."""
    from alembic.script.revision import Revision, RevisionMap  # alembic is slow to import

    folder = mlflow_folder() / line.folder / "versions"
    scripts = [_read(path) for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    if not scripts:  # mlflow-skinny has no server
        return ()
    titles = {revision: title for revision, _, title in scripts}
    graph = RevisionMap(lambda: [Revision(revision, down) for revision, down, _ in scripts])
    ordered = [step.revision for step in graph.iterate_revisions("heads", "base")]
    return tuple(Step(revision, titles[revision]) for revision in reversed(ordered))


def _read(path: Path) -> tuple[str, str | None, str]:
    """Return revision, revision before it, and title of one migration script."""
    module = ast.parse(path.read_bytes())
    values = {
        target.id: ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in {"revision", "down_revision"}
    }
    title = (ast.get_docstring(module) or path.stem).splitlines()[0].strip()
    return values["revision"], values["down_revision"], title if " " in title else title.replace("_", " ")


def released_version(connection: Connection) -> str | None:
    """Return which of `RELEASED_HEADS` a database's schema is, or None: ask `inspect_schema` then."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revisions = list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    return RELEASED_HEADS.get(revisions[0]) if len(revisions) == 1 else None


def lines_of(present: Iterable[str]) -> tuple[Line, ...]:
    """Return the lines of revisions that tables of these names are of; of none, that of a server to be."""
    names = set(present)
    if not has_auth(names):
        return (MAIN,)
    return (MAIN, BASIC_AUTH) if has_tracking(names) else (BASIC_AUTH,)


def inspect_schema(connection: Connection, *, auth_alone: bool = False) -> Schema:
    """Tell the state of a database's schema; changes nothing. Tables of basic auth in it count, too.

    Args:
        connection: to the database, from `database.connection.connect`.
        auth_alone: a database that holds nothing but basic auth's tables will do.
    """
    names = set(inspect(connection).get_table_names())
    main = _inspect_main(connection, names)
    if not has_auth(names) or not revisions(BASIC_AUTH):
        return main
    auth = _inspect_auth(connection, names)
    if auth_alone and not has_tracking(names):
        return auth
    if main.state not in {"current", "behind"} or auth.state == "current":
        return main
    detail = f"{main.detail}; {auth.detail}" if main.state == "behind" else auth.detail
    return replace(main, state=auth.state, pending=main.pending + auth.pending, detail=detail)


def _heads(connection: Connection, line: Line) -> tuple[str, ...]:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection, opts={"version_table": line.table}).get_current_heads()


def _inspect_main(connection: Connection, names: set[str]) -> Schema:
    known, version = revisions(), mlflow_version()
    heads = _heads(connection, MAIN)
    current = heads[0] if len(heads) == 1 else None
    tables = names - AUTH if has_auth(names) else names
    state, pending, detail = _judge(connection, heads, known, version, tables)
    return Schema(state, current, known[-1].revision, version, pending, detail)


def _inspect_auth(connection: Connection, names: set[str]) -> Schema:
    known, version = revisions(BASIC_AUTH), mlflow_version()
    heads = _heads(connection, BASIC_AUTH) if AUTH_REVISION in names else (FIRST_OF_AUTH,)
    state, pending, detail = _compare(heads, known, version)
    current = heads[0] if len(heads) == 1 else None
    return Schema(state, current, known[-1].revision, version, pending, f"basic auth: {detail}")


def _judge(
    connection: Connection, heads: tuple[str, ...], known: tuple[Step, ...], version: str, names: set[str]
) -> tuple[State, tuple[Step, ...], str]:
    tables = {name for name in names if not name.startswith("alembic_")}
    if not heads and (not tables or (tables <= INITIAL_TABLES and not _has_rows(connection, tables))):
        # the second: an earlier creation was killed between MLflow's first tables and its first revision
        return "empty", known, "no tables yet"
    if not has_tracking(tables):
        shown = ", ".join(sorted(tables)[:5])
        return "unknown", (), f"not an MLflow database: it holds {len(tables)} other tables ({shown})"
    if not heads:
        return "unknown", (), "MLflow's tables without a revision: written by an MLflow before 1.0"
    return _compare(heads, known, version)


def _compare(
    heads: tuple[str, ...], known: tuple[Step, ...], version: str
) -> tuple[State, tuple[Step, ...], str]:
    names = [step.revision for step in known]
    if len(heads) != 1 or heads[0] not in names:
        newer = RELEASED_HEADS.get(heads[0]) if heads else None
        which = f"MLflow {newer}" if newer else f"an MLflow newer than {version}"
        return "ahead", (), f"revision {', '.join(heads)} belongs to {which}; installed is {version}"
    pending = known[names.index(heads[0]) + 1 :]
    if not pending:
        return "current", (), f"at the head of MLflow {version}"
    count = f"{len(pending)} revision{'s' if len(pending) > 1 else ''}"
    return "behind", pending, f"{count} behind the head of MLflow {version}"


def _has_rows(connection: Connection, tables: set[str]) -> bool:
    return any(connection.exec_driver_sql(f"SELECT 1 FROM {table} LIMIT 1").first() for table in tables)  # noqa: S608


def is_listed(*asked: str | None) -> bool:
    """Whether `database.tables` knows all tables of a schema that is at these revisions, each of some line."""
    listed = set(RELEASED_HEADS)
    for line, head in ((MAIN, HEAD), (BASIC_AUTH, AUTH_HEAD)):
        names = [step.revision for step in revisions(line)]
        listed.update(names[: names.index(head) + 1] if head in names else names)
    return all(revision is None or revision in listed for revision in asked)


def refusal(schema: Schema, shown_uri: str) -> UserError:
    """Return the error for a schema that must not be touched (ahead, unknown)."""
    where = f"database: {shown_uri}"
    if schema.state == "ahead":
        newer = RELEASED_HEADS.get(schema.revision or "")
        use = f"use MLflow {newer} or later" if newer else f"use an MLflow newer than {schema.mlflow_version}"
        return UserError(
            f"the schema is newer than MLflow {schema.mlflow_version}: {schema.detail}",
            where,
            f"{use} with this database, or restore a backup made before it was upgraded: invoke backups",
        )
    return UserError(f"cannot tell the schema's state: {schema.detail}", where, "nothing was changed")
