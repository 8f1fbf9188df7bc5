"""What a cleanup would delete: counted, and nothing changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, select

from artifacts import Store, StoreError, open_store
from artifacts.base import batches
from cleanup import orphans, schema
from cleanup.locations import ENTITY, Destination, Protected, StrangeLocation
from cleanup.objects import objects_in
from cleanup.schema import parameters
from cleanup.selection import DELETED, EXPERIMENT, MODEL, RUN, TRACE, Kind, Selection
from console import UserError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine

    from cleanup.filters import Filters
    from cleanup.schema import Schema

BATCH = 500
SHOWN = 1000  # how many skipped things are named; all are counted


@dataclass(frozen=True)
class Skipped:
    """Something that was selected and stays: `kind`, `id`, `reason`."""

    kind: str
    id: str
    reason: str


@dataclass
class Plan:
    """What is going to be deleted.

    `counts` by kind are exact; `rows` by table, `objects` and `bytes` are only known when `counted`.
    `skipped` names what is selected but stays. `undated` counts what `--include-undated` would add.
    """

    engine: Engine
    store: Store
    destination: Destination
    schema: Schema
    selection: Selection
    protected: Protected
    counted: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    bytes: int = 0
    orphan_rows: Counter[str] = field(default_factory=Counter)
    orphan_folders: int = 0
    left: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    undated: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def filters(self) -> Filters:
        """The filters that the plan was made with."""
        return self.selection.filters

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do (only sure when `counted`)."""
        return not (any(self.counts.values()) or any(self.orphan_rows.values()) or self.orphan_folders)


def plan(engine: Engine, destination: str, filters: Filters, *, count: bool = True) -> Plan:
    """Find out what a cleanup would delete. Reads only, and never migrates.

    Args:
        engine: the backend store, from `database.connection.connect`.
        destination: the artifact destination.
        filters: what to delete.
        count: also count rows by table, objects and bytes, which reads about as much as deleting them would.

    Raises:
        UserError: no MLflow database, an id that does not exist or is not deleted, a reference that
            deleting would leave dangling, a destination that cannot be opened.
    """
    try:
        store = open_store(destination)
    except StoreError as error:
        raise UserError(str(error), "give --artifacts-destination as the tracking server has it") from None
    found = schema.read(engine)
    found.check_references(filters.ignore_references)
    selection = Selection(found, filters)
    place = Destination(destination)
    with engine.connect() as connection:
        selection.check_ids(connection)
        protected = Protected.read(connection, found, place, force_registered=filters.force_registered)
        result = Plan(engine, store, place, found, selection, protected)
        for kind in (RUN, MODEL, TRACE, EXPERIMENT):
            result.counts[kind.name] = selection.count(connection, kind)
            if not filters.include_undated:
                more = selection.count(connection, kind, undated=True) - result.counts[kind.name]
                if more:
                    result.undated[kind.name] = more
        if count:
            _count(result, connection)
    return result


def folders_of(result: Plan, entity: object, uris: list[str]) -> list[str] | str:
    """Return the folders of one thing, or why it must stay."""
    try:
        folders = [result.destination.folder(str(entity), uri) for uri in uris]
    except StrangeLocation as strange:
        return str(strange)
    if why := result.protected.reason(str(entity), *folders):
        return why
    return folders


def experiment_obstacle(connection: Connection, result: Plan, experiment: int) -> str | None:
    """Return why a deleted experiment must stay, apart from its runs, or None."""
    tables = result.schema.tables
    if "guardrails" in tables and "scorers" in tables:
        guardrails, scorers = tables["guardrails"], tables["scorers"]
        used = select(guardrails.c.name).where(
            guardrails.c.scorer_id.in_(
                select(scorers.c.scorer_id).where(scorers.c.experiment_id == experiment)
            )
        )
        if name := connection.execute(used.limit(1)).scalar():
            return f"gateway guardrail {name} uses a scorer of it"
    return None


def live_runs(result: Plan, experiment: int) -> ColumnElement[bool]:
    """Return the condition that an experiment still holds a run that nobody deleted."""
    runs = result.schema.tables["runs"]
    return exists(select(1).where(runs.c.experiment_id == experiment, runs.c.lifecycle_stage != DELETED))


def _skip(result: Plan, kind: Kind, entity: object, reason: str) -> None:
    result.counts[kind.name] -= 1
    if len(result.skipped) < SHOWN:
        result.skipped.append(Skipped(kind.name, str(entity), reason))


def _count(result: Plan, connection: Connection) -> None:
    for kind in (RUN, MODEL, TRACE):
        table = result.selection.table(kind)
        if table is None:
            continue
        queries = result.schema.counts(result.schema.closure(kind.table, kind.key))
        for page in result.selection.pages(connection, kind):
            for ids in batches(page, BATCH):
                going = []
                folders = []
                for entity, uris in result.selection.locations(connection, kind, ids).items():
                    found = folders_of(result, entity, uris)
                    if isinstance(found, str):
                        _skip(result, kind, entity, found)
                        continue
                    going.append(entity)
                    folders += found
                _count_rows(result, connection, queries, going)
                _count_objects(result, folders)
    queries = result.schema.counts(result.schema.closure("experiments", "experiment_id", without=("runs",)))
    for page in result.selection.pages(connection, EXPERIMENT):
        for experiment in page:
            why = _experiment_stays(result, connection, experiment)
            if why:
                _skip(result, EXPERIMENT, experiment, why)
                continue
            rows = _count_rows(result, connection, queries, [experiment])
            for kind in (MODEL, TRACE):
                counted = _selected_inside(result, connection, kind, experiment)
                result.counts[kind.name] += rows[kind.table] - counted
            _count_experiment_objects(result, connection, experiment)
    if "orphans" in result.filters.kinds:
        result.orphan_rows = orphans.count_rows(connection, result.selection)
        connection.rollback()
        _count_orphans(result, connection)
    result.counted = True


def _experiment_stays(result: Plan, connection: Connection, experiment: int) -> str | None:
    runs = result.schema.tables["runs"]
    if connection.execute(select(live_runs(result, experiment))).scalar():
        return "a run in it is not deleted: delete or move that run first"
    kept = [
        item.id
        for item in result.skipped
        if item.kind == "run"
        and connection.execute(
            select(1).where(runs.c.run_uuid == item.id, runs.c.experiment_id == experiment)
        ).scalar()
    ]
    if kept:
        return f"run {kept[0]} in it stays"
    rest = select(runs.c.run_uuid).where(runs.c.experiment_id == experiment, ~result.selection.condition(RUN))
    if name := connection.execute(rest.limit(1)).scalar():
        return f"run {name} in it is not selected"
    return experiment_blocker(connection, result, experiment)


def experiment_blocker(connection: Connection, result: Plan, experiment: int) -> str | None:
    """Return why an experiment without runs must stay: what its models and others need of it."""
    if why := experiment_obstacle(connection, result, experiment):
        return why
    experiments = result.schema.tables["experiments"]
    uri = connection.execute(
        select(experiments.c.artifact_location).where(experiments.c.experiment_id == experiment)
    ).scalar()
    if uri:
        try:
            key = result.destination.key(uri)
        except StrangeLocation as strange:
            return str(strange)
        if why := result.protected.inside(key + "/"):
            return why
    models = result.selection.table(MODEL)
    if models is not None:
        query = select(models.c.model_id, models.c.artifact_location).where(
            models.c.experiment_id == experiment
        )
        for model, location in connection.execute(query.execution_options(yield_per=1000)):
            found = folders_of(result, model, [location] if location else [])
            if isinstance(found, str):
                return f"logged model {model} in it stays: {found}"
    return None


def _count_rows(
    result: Plan, connection: Connection, queries: list[tuple[str, Any]], ids: list[Any]
) -> Counter[str]:
    found: Counter[str] = Counter()
    if ids:
        for table, query in queries:
            found[table] = int(connection.execute(query, parameters(result.schema.dialect, ids)).scalar_one())
        connection.rollback()  # hold no snapshot while the store is slow
    result.rows.update(found)
    return found


def _count_objects(result: Plan, folders: list[str]) -> None:
    for _, found in objects_in(result.store, folders):
        if isinstance(found, str):
            note = f"the plan could not list everything: {found}"
            if note not in result.notes and len(result.notes) < 20:
                result.notes.append(note)
            continue
        result.objects += 1
        result.bytes += found.size


def _selected_inside(result: Plan, connection: Connection, kind: Kind, experiment: int) -> int:
    """Count what is in the experiment and is also selected by itself."""
    table = result.selection.table(kind)
    if table is None:
        return 0
    inside = select(func.count()).select_from(table)
    inside = inside.where(table.c.experiment_id == experiment, result.selection.condition(kind))
    return int(connection.execute(inside).scalar_one())


def _count_experiment_objects(result: Plan, connection: Connection, experiment: int) -> None:
    """Count the objects in an experiment's folder but those of runs and models that are counted already."""
    locations = result.selection.locations(connection, EXPERIMENT, [experiment])[experiment]
    for folder in (result.destination.key(uri) for uri in locations):
        if folder.rpartition("/")[2] != str(experiment):
            continue
        for group in batches(objects_in(result.store, [folder + "/"]), 1000):
            owners = [ENTITY.findall(found.key) for _, found in group if not isinstance(found, str)]
            ids = {names[0] for names in owners if names}
            counted = result.selection.selected_ids(connection, ids)
            for _, found in group:
                if isinstance(found, str):
                    continue
                names = ENTITY.findall(found.key)
                if not (names and names[0] in counted):
                    result.objects += 1
                    result.bytes += found.size


def _count_orphans(result: Plan, connection: Connection) -> None:
    folders = objects = size = owned = 0
    try:
        for unowned, found in orphans.find(connection, result.selection, result.store, result.protected):
            result.left, result.examples, owned = unowned.left, unowned.examples, unowned.owned
            folders += len(found)
            objects += sum(item.objects for item in found)
            size += sum(item.bytes for item in found)
    except StoreError as error:
        result.notes.append(f"orphaned artifacts cannot be looked for: {error}")
    if folders and not owned and not result.filters.foreign_orphans:
        result.notes.append(orphans.FOREIGN.format(count=folders))
        return
    result.orphan_folders = folders
    result.objects += objects
    result.bytes += size
