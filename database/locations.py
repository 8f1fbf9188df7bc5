"""Where rows say that artifacts are, for a database whose artifacts have moved.

A server that serves artifacts writes ``mlflow-artifacts:/...``, which fits wherever they are. A client that wrote to
the database itself, and a server with ``--no-serve-artifacts``, write a path or a URI of the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy import column, func, inspect, literal, or_, select, table, update

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Engine, TableClause

_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)


def prefixes(root: str) -> list[str]:
    """Return every way to begin the location of something below an artifact destination.

    Args:
        root: an absolute path, or a URI. A path is also meant by ``file:`` URIs, and by its last name alone:
            clients of MLflow up to 2 wrote ``./mlruns/0`` when that was what they were given.
    """
    root = root.rstrip("/")
    if not root.startswith("/"):
        return [f"{root}/"]
    name = root.rpartition("/")[2]
    forms = [
        root,
        *(scheme + quote(root) for scheme in ("file://", "file:", "file://localhost")),
        f"./{name}",
        name,
    ]
    return [f"{form}/" for form in dict.fromkeys(forms)]


def move(engine: Engine, roots: Sequence[str], to: str) -> int:
    """Have every location below one of `roots` name the same place below `to`; in one transaction.

    Args:
        engine: to the database.
        roots: names of the artifact destination that it used.
        to: the new one, as the rows shall name it: ``mlflow-artifacts:/``, a path, or a URI.

    Returns:
        How many locations were changed.
    """
    begin = f"{to.rstrip('/')}/"
    changed = 0
    with engine.begin() as connection:
        for name, place, this in _places(connection):
            for prefix in dict.fromkeys(form for root in roots for form in prefixes(root)):
                if prefix == begin:
                    continue
                rest = func.substr(place, len(prefix) + 1)
                statement = update(name).where(_begins(place, prefix), this)
                changed += connection.execute(
                    statement.values({place.name: literal(begin).concat(rest)})
                ).rowcount
    return changed


def outside(engine: Engine, roots: Sequence[str]) -> list[str]:
    """Return the locations of experiments, and of runs without a server, that lie below none of `roots`."""
    if not inspect(engine).has_table("experiments"):
        return []
    place: ColumnElement[str] = column("artifact_location")
    known = [form for root in roots for form in prefixes(root)] + ["mlflow-artifacts:"]
    query = select(place).select_from(table("experiments")).where(place.is_not(None)).distinct()
    with engine.connect() as connection:
        found = (
            connection.execute(query.where(~or_(*(_begins(place, form) for form in known)))).scalars().all()
        )
    return sorted(found)


def _begins(place: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """``LIKE`` would want its wildcards escaped, and SQLite's does not tell capitals from small letters."""
    return func.substr(place, 1, len(prefix)) == prefix


def _places(connection: Connection) -> list[tuple[TableClause, ColumnElement[str], ColumnElement[bool]]]:
    """The tables of this schema with a column that holds locations, and which of their rows it is about."""
    there = inspect(connection)
    found: list[tuple[TableClause, ColumnElement[str], ColumnElement[bool]]] = []
    for name, holder in _COLUMNS:
        if there.has_table(name) and holder in {one["name"] for one in there.get_columns(name)}:
            about = (
                column("key") == "mlflow.artifactLocation"
                if name == "trace_tags"
                else literal(True).is_(True)
            )
            found.append((table(name, column(holder), column("key")), column(holder), about))
    return found
