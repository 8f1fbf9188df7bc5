"""What stays, by the place that it names: what lies there is never deleted, whoever's folder it is in.

A row names the place of its artifacts. Most are laid out as MLflow does it, ``.../<its own id>/artifacts``, and
nobody else's folder can hold those by accident: of them only the distinct folders above are kept here, a handful. What
is laid out in any other way is kept one by one.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import String, and_, cast, exists, func, literal, select, true, union_all

from cleanup.locations import ENTITY, Destination
from cleanup.selection import MODEL, RUN, TRACE_LOCATION_TAGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection, Select, Table

    from cleanup.schema import Schema
    from cleanup.selection import Selection

LAST = "/artifacts"


@dataclass(frozen=True, slots=True)
class Place:
    """A place that somebody names: whose, and why it stays.

    `holds` is False for a folder that others have their places in, as an experiment's: what is above nobody's files
    is no reason to keep them. With `whole` all of an entity stays in whose folder the place is.
    """

    owner: str
    why: str
    holds: bool = True
    whole: bool = False


class Alive:
    """The places of one database, and of the registries beside it."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._places: dict[str, list[Place]] = {}
        self._keys: list[str] = []

    def reason(self, entity: str, folder: str) -> str | None:
        """Return why an entity must stay, with all in its folder, or None.

        Args:
            entity: its id.
            folder: what it owns: a folder's key, with a slash at its end.
        """
        if entity in self._ids:
            return self._ids[entity]
        key = folder.rstrip("/")
        above = [key, f"{key}{LAST}"]
        while key:
            key = key.rpartition("/")[0]
            above.append(key)
        for name in above:
            for place in self._places.get(name, ()):
                if place.holds and place.owner != entity:
                    return place.why
        for name in self._inside(folder):
            for place in self._places[name]:
                if place.whole and place.owner != entity:
                    return place.why
        return None

    def kept(self, entity: str, folder: str) -> tuple[str, ...]:
        """Return the keys inside an entity's folder that others name: they, and all below them, stay."""
        return tuple(
            name
            for name in self._inside(folder)
            if any(place.owner != entity for place in self._places[name])
        )

    def _inside(self, folder: str) -> Iterator[str]:
        at = bisect_left(self._keys, folder)
        while at < len(self._keys) and self._keys[at].startswith(folder):
            yield self._keys[at]
            at += 1

    def add(self, keys: set[str], place: Place) -> None:
        """Keep the keys of a place; `seal` comes after the last."""
        for key in keys:
            self._places.setdefault(key, []).append(place)

    def seal(self) -> None:
        """Make it ready to be asked."""
        self._keys = sorted(self._places)

    @classmethod
    def read(cls, connection: Connection, selection: Selection, destination: Destination) -> Alive:
        """Read the places that runs, logged models, traces and experiments name.

        Args:
            connection: to the database.
            selection: what is laid out in no folder of its own counts unless it is selected itself.
            destination: the artifact destination.
        """
        alive = cls()
        # in one statement: a database that is far away is asked once
        named = connection.execute(union_all(*_named(selection))).all()
        workspaces = [place for what, _, place in named if what == "workspace"]
        for what, owner, place in named:
            if what == "entity":
                claimed = Place(owner, f"the artifacts of {owner} are there")
                alive.add(destination.places(place, workspaces), claimed)
            elif what == "dataset":
                read = Place("", f"dataset {owner} of a run that is not deleted lies there")
                for source in _sources(place):
                    alive.add(destination.places(source, workspaces), read)
            elif what == "folder":
                shared = Place("", f"{owner} have their artifacts there", holds=False)
                alive.add(destination.places(f"{place}/", workspaces), shared)
        alive.seal()
        return alive

    def read_versions(self, connection: Connection, schema: Schema, destination: Destination) -> None:
        """Add what registered model versions name, of this database or of a registry in another.

        They do so in three ways: `run_id`, an id or a path in `source`, and a path in `storage_location`
        (mlflow.store.model_registry.sqlalchemy_store.create_model_version).
        """
        if "model_versions" not in schema.tables:
            return
        versions = schema.tables["model_versions"]
        workspace = versions.c.get("workspace", literal(""))
        columns = [
            versions.c[name] for name in ("run_id", "source", "storage_location") if name in versions.c
        ]
        query = select(workspace, versions.c.name, versions.c.version, *columns).where(
            versions.c.current_stage.is_distinct_from("Deleted_Internal")
        )
        rows = connection.execute(query).all()
        workspaces = {row[0] for row in rows}
        for _, name, version, run, *locations in rows:
            why = f"registered model version {name}/{version} needs it"
            if run:
                self._ids[run] = why
            for location in filter(None, locations):
                self._ids.update(dict.fromkeys(ENTITY.findall(location), why))
                self.add(destination.places(location, workspaces), Place("", why, whole=True))
        self.seal()


def _named(selection: Selection) -> Iterator[Select[str, str, str]]:
    """Yield queries for (what, whose, location): "folder", "entity", "dataset" or "workspace"."""
    schema = selection.schema
    for table, key, location, condition in _columns(selection):
        ending = literal("/").concat(key).concat(LAST)
        rest = func.length(location) - func.length(ending)
        # not LIKE: an id may hold its wildcards, and SQLite's does not tell capitals from small letters
        own = and_(rest > 0, func.substr(location, rest + 1) == ending)
        above = func.substr(location, 1, rest)
        yield select(_text("folder"), _text(table.name), above).where(condition[0], own).distinct()
        yield select(_text("entity"), key, location).where(*condition, location != "", ~own)
    if schema.has("datasets", "dataset_source") and schema.has("inputs", "source_id", "destination_id"):
        datasets, inputs, runs = (schema.tables[name] for name in ("datasets", "inputs", "runs"))
        used = exists(
            select(1).where(
                inputs.c.source_type == "DATASET",
                inputs.c.source_id == datasets.c.dataset_uuid,
                inputs.c.destination_id == runs.c.run_uuid,
                selection.others(RUN),
            )
        )
        source = datasets.c.dataset_source
        yield select(_text("dataset"), datasets.c.name, source).where(source.contains(LAST), used)
    for name, column, what in (
        ("experiments", "artifact_location", "folder"),
        ("workspaces", "default_artifact_root", "folder"),
        ("experiments", "workspace", "workspace"),
    ):
        if schema.has(name, column):
            value = schema.tables[name].c[column]
            yield select(_text(what), _text(name), value).where(value != "").distinct()


def _sources(described: str) -> list[str]:
    """Return the places in a dataset's source, which is JSON of any shape (mlflow.data.dataset_source)."""
    try:
        source = json.loads(described)
    except ValueError:
        return [described]
    values = source.values() if isinstance(source, dict) else [source]
    return [value for value in values if isinstance(value, str)]


def _text(value: str) -> ColumnElement[str]:
    return cast(literal(value), String)


def _columns(
    selection: Selection,
) -> Iterator[tuple[Table, ColumnElement[str], ColumnElement[str], list[ColumnElement[bool]]]]:
    """Yield (table, id, location, conditions) of everything that names the place of its own artifacts.

    The first condition is which rows are meant, the others what counts of those that share no folder.
    """
    schema = selection.schema
    for kind in (RUN, MODEL):
        if kind.location and schema.has(kind.table, kind.key, kind.location):
            table = schema.tables[kind.table]
            yield table, table.c[kind.key], table.c[kind.location], [true(), selection.others(kind)]
    if schema.has("trace_tags", "request_id", "key", "value"):
        tags = schema.tables["trace_tags"]
        yield tags, tags.c.request_id, tags.c.value, [tags.c.key.in_(TRACE_LOCATION_TAGS)]
