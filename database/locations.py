"""Where rows say that artifacts are, for a database whose artifacts have moved.

A server that serves artifacts writes ``mlflow-artifacts:/...``, which fits wherever they are. A client that wrote to
the database itself, and a server with ``--no-serve-artifacts``, write a path or a URI of the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from sqlalchemy import and_, column, func, inspect, literal, or_, select, table, update

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Engine, TableClause


class Location(NamedTuple):
    """One column that holds artifact locations.

    Attributes:
        kind: of what it is about, as a person calls it: ``runs``.
        table: its table.
        column: its name.
        key: only rows with this ``key`` are meant, where the table holds tags; else empty.
    """

    kind: str
    table: str
    column: str
    key: str = ""


# Every column of MLflow's schema that says where artifacts are (mlflow.store.tracking.dbmodels.models,
# mlflow.store.model_registry.dbmodels.models; the tags: mlflow.utils.mlflow_tags).
LOCATIONS = (
    Location("experiments", "experiments", "artifact_location"),
    Location("runs", "runs", "artifact_uri"),
    Location("models", "logged_models", "artifact_location"),
    Location("versions", "model_versions", "source"),
    Location("versions", "model_versions", "storage_location"),
    Location("traces", "trace_tags", "value", "mlflow.artifactLocation"),
    Location("traces", "trace_tags", "value", "mlflow.trace.archiveLocation"),
)
# What names an entity, not a place; and what the server finds wherever its destination is.
NO_PLACES = ("runs:/", "models:/", "mlflow-artifacts:")


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
        for location in _there(connection):
            name, place, this = _parts(location)
            for prefix in dict.fromkeys(form for root in roots for form in prefixes(root)):
                if prefix == begin:
                    continue
                rest = func.substr(place, len(prefix) + 1)
                statement = update(name).where(_begins(place, prefix), this)
                changed += connection.execute(
                    statement.values({place.name: literal(begin).concat(rest)})
                ).rowcount
    return changed


class Outside(NamedTuple):
    """Rows whose artifacts are elsewhere: how many of each kind, and up to three of the places."""

    counts: dict[str, int]
    examples: list[str]


def outside(engine: Engine, roots: Sequence[str]) -> Outside:
    """Count the rows of each kind whose artifacts lie below none of `roots`; kinds without one are left out."""
    known = [form for root in roots for form in prefixes(root)] + list(NO_PLACES)
    counts, examples = dict[str, int](), list[str]()
    with engine.connect() as connection:
        for location in _there(connection):
            name, place, this = _parts(location)
            elsewhere = and_(
                this, place.is_not(None), place != "", ~or_(*(_begins(place, form) for form in known))
            )
            query = select(func.count(), func.min(place)).select_from(name).where(elsewhere)
            number, example = connection.execute(query).one()
            if number:
                # a version may name its place in both columns
                counts[location.kind] = max(number, counts.get(location.kind, 0))
                examples.append(example)
    return Outside(counts, list(dict.fromkeys(examples))[:3])


def _begins(place: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """``LIKE`` would want its wildcards escaped, and SQLite's does not tell capitals from small letters."""
    return func.substr(place, 1, len(prefix)) == prefix


def _there(connection: Connection) -> list[Location]:
    """The locations whose table and column this database has."""
    there = inspect(connection)
    tables = set(there.get_table_names())
    columns = {
        name: {column["name"] for column in there.get_columns(name)}
        for name in dict.fromkeys(location.table for location in LOCATIONS)
        if name in tables
    }
    return [location for location in LOCATIONS if location.column in columns.get(location.table, ())]


def _parts(location: Location) -> tuple[TableClause, ColumnElement[str], ColumnElement[bool]]:
    """The table, the column, and which of its rows a location is about."""
    about = column("key") == location.key if location.key else literal(True).is_(True)
    return table(location.table, column(location.column), column("key")), column(location.column), about
