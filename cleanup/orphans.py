"""What nobody owns any more: rows that point at nothing, and artifacts that belong to nothing."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, func, select, update

from artifacts.base import OWN, batches
from cleanup.filters import parse_age
from cleanup.locations import ENTITY, MODEL_ID, RUN_ID, TRACE_ID
from cleanup.objects import OWNED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import ColumnElement, Connection

    from artifacts import Store
    from cleanup.alive import Alive
    from cleanup.schema import Edge, Schema
    from cleanup.selection import Selection
    from database import ownership

# <experiment>/<run>/artifacts, <experiment>/models/<m->/artifacts, <experiment>/traces/<tr->/artifacts
# (mlflow.store.tracking.sqlalchemy_store, _FOLDER_NAME), in a workspace below workspaces/<name>/
# (mlflow.store.tracking.sqlalchemy_workspace_store).
LAYOUT = re.compile(
    rf"(?:workspaces/[^/]+/)?\d+/"
    rf"(?:(?P<run>{RUN_ID})|models/(?P<model>{MODEL_ID})|traces/(?P<trace>{TRACE_ID}|{RUN_ID}))/"
)
NOT_OURS = (
    "orphaned artifacts, {count} folder{s}, stay where they are: {why}; to claim the destination: --claim"
)
STRANGE = "not in the layout that MLflow writes"
OWNERS = (("runs", "run_uuid"), ("logged_models", "model_id"), ("trace_info", "request_id"))


def edges(schema: Schema) -> list[Edge]:
    """Return the references whose rows may point at nothing."""
    return [
        edge
        for edge in schema.edges
        if (edge.reference.orphans if edge.reference else not schema.language.enforces_keys)
    ]


def condition(edge: Edge, selection: Selection) -> ColumnElement[bool]:
    """Return which rows of a reference are orphans, and old enough not to be still in the making."""
    clause = edge.dangling(selection.schema.language)
    if "created_time" in edge.child.c and edge.reference:
        # traces are linked to runs before they are exported
        before = (selection.now - parse_age(selection.filters.orphan_grace)) * 1000
        clause = and_(clause, edge.child.c.created_time < int(before))
    return clause


def count_rows(connection: Connection, selection: Selection) -> Counter[str]:
    """Count orphaned rows by ``table.column``."""
    counts: Counter[str] = Counter()
    for edge, count in _dangling(connection, selection):
        counts[edge.name] += count
    return counts


def _dangling(connection: Connection, selection: Selection) -> list[tuple[Edge, int]]:
    """Return the references that have orphaned rows, and how many: one question, and mostly the last one."""
    asked = edges(selection.schema)
    counts = (
        select(func.count()).select_from(edge.child).where(condition(edge, selection)).scalar_subquery()
        for edge in asked
    )
    answer = connection.execute(select(*counts)).one() if asked else ()
    return [(edge, count) for edge, count in zip(asked, answer, strict=True) if count]


def delete_rows(connection: Connection, selection: Selection) -> tuple[int, Counter[str]]:
    """Delete or mend orphaned rows; committing is the caller's.

    Returns:
        How many references were mended, and the deleted rows by table.
    """
    deleted: Counter[str] = Counter()
    total = 0
    for _ in range(5):  # a deleted row may have been what others point at
        dangling = _dangling(connection, selection)
        if not dangling:
            break
        for edge, _ in dangling:
            where = condition(edge, selection)
            if edge.action == "null":
                mended = update(edge.child).where(where).values(dict.fromkeys(edge.columns))
                total += connection.execute(mended).rowcount
                continue
            gone = connection.execute(delete(edge.child).where(where)).rowcount
            deleted[edge.child.name] += gone
            total += gone
    return total, +deleted


@dataclass
class Folder:
    """One folder of a destination in MLflow's layout, with its newest object's time (None: not known)."""

    name: str
    entity: str
    objects: int = 0
    bytes: int = 0
    newest: float | None = 0.0
    strange: bool = False  # it holds more than artifacts


@dataclass
class Unowned:
    """What a walk through the destination found that belongs to nothing in the database.

    `folders` are those in MLflow's layout that are old enough; `left` counts by reason the ones that stay,
    `examples` names one for each reason; `owned` counts the folders that something owns.
    """

    folders: list[Folder] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    owned: int = 0

    def leave(self, reason: str, example: str) -> None:
        """Count something that stays."""
        self.left[reason] += 1
        self.examples.setdefault(reason, example)


def _folders(store: Store, unowned: Unowned, unknown: dict[str, set[str]]) -> Iterator[Folder]:
    """Yield one folder after the other; a store lists the objects of a folder one after the other."""
    current: Folder | None = None
    for item in store.list():
        if item.key.startswith(OWN):
            continue
        match = LAYOUT.match(item.key)
        if not match:
            ids = ENTITY.findall(item.key)
            if ids:  # an experiment with a location of its own, most likely
                unknown.setdefault(ids[-1], set()).add(item.key)
                if len(unknown) < 1000:
                    continue
                ids = []
            unowned.leave(STRANGE, item.key)
            continue
        if current is None or current.name != match[0]:
            if current:
                yield current
            current = Folder(match[0], match["run"] or match["model"] or match["trace"])
        if not item.key.startswith(match[0] + OWNED):
            current.strange = True
            continue
        current.objects += 1
        current.bytes += item.size
        if item.modified is None:
            current.newest = None
        elif current.newest is not None:
            current.newest = max(current.newest, item.modified)
    if current:
        yield current


class FileStore:
    """Tells what belongs to MLflow's file store, which keeps a meta.yaml in each experiment's folder and each run's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, bool] = {}

    def holds(self, folder: str) -> bool:
        """Whether one of the folders above lies in a file store."""
        above = folder.rstrip("/").rpartition("/")[0]
        if not above:
            return False
        if above not in self._known:
            self._known[above] = self._is_there(f"{above}/meta.yaml") or self.holds(above)
        return self._known[above]

    def _is_there(self, key: str) -> bool:
        with TemporaryDirectory() as name:
            return self._store.fetch(key, Path(name) / "meta.yaml") is not None


def not_ours(owner: ownership.Ownership, count: int) -> str:
    """Return the note that some folders stay because the destination may be another's as well."""
    return NOT_OURS.format(count=count, s="s" * (count != 1), why=owner)


def known_ids(connection: Connection, schema: Schema, ids: Iterable[str]) -> set[str]:
    """Return those ids that a run, logged model or trace has, deleted or not."""
    wanted = list(ids)
    known: set[str] = set()
    for table, key in OWNERS:
        if table in schema.tables and wanted:
            column = schema.tables[table].c[key]
            known.update(connection.execute(select(column).where(column.in_(wanted))).scalars())
    connection.rollback()  # hold no snapshot while the store is slow
    return known


def _stays(folder: Folder, alive: Alive, files: FileStore, selection: Selection) -> str | None:
    """Return why a folder stays that nobody in the database owns, or None."""
    if why := alive.reason(folder.entity, folder.name):
        return why
    if alive.kept(folder.entity, folder.name):
        return "others have their artifacts inside"
    if folder.newest is None:
        return "the store tells no age"
    grace = selection.filters.orphan_grace
    if folder.newest >= selection.now - parse_age(grace):
        return f"younger than {grace}"
    if folder.strange:
        return STRANGE
    return "of a file store: there is a meta.yaml above" if files.holds(folder.name) else None


def find(
    connection: Connection, selection: Selection, store: Store, alive: Alive
) -> Iterator[tuple[Unowned, list[Folder]]]:
    """Walk through the destination; yield the findings so far with each batch of orphaned folders.

    The last batch may be empty. Only what is yielded may be deleted, and only right away.
    """
    files = FileStore(store)
    unowned = Unowned()
    unknown: dict[str, set[str]] = {}
    for group in batches(_folders(store, unowned, unknown), 500):
        owned = known_ids(connection, selection.schema, {folder.entity for folder in group})
        orphans = []
        for folder in group:
            if folder.entity in owned:
                unowned.owned += 1
            elif why := _stays(folder, alive, files, selection):
                unowned.leave(why, folder.name)
            else:
                orphans.append(folder)
        yield unowned, orphans
    owned = known_ids(connection, selection.schema, unknown)
    for entity, keys in unknown.items():
        for key in keys:
            if entity in owned:
                unowned.owned += 1
            else:
                unowned.leave(STRANGE, key)
    yield unowned, []
