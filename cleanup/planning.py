"""What a cleanup would delete: counted, and nothing changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, select

from artifacts import Store, StoreError, open_store
from artifacts.base import batches
from cleanup import orphans, schema
from cleanup.alive import Alive
from cleanup.destination import check_destination
from cleanup.locations import Destination, StrangeLocation
from cleanup.objects import Folders, objects_in
from cleanup.report import SHOWN, Skipped
from cleanup.selection import ALONE, DELETED, EXPERIMENT, MODEL, RUN, TRACE, Kind, Selection
from console import UserError
from database import ownership
from database.ownership import Ownership

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, Select

    from cleanup.filters import Filters
    from cleanup.schema import Schema

BATCH = 500
INSIDE = 5000  # locations that are asked for at once


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
    alive: Alive
    owner: Ownership
    registry: Engine | None = None
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


def plan(
    engine: Engine,
    destination: str,
    filters: Filters,
    *,
    registry: Engine | None = None,
    count: bool = True,
) -> Plan:
    """Find out what a cleanup would delete. Reads only, and never migrates.

    Args:
        engine: the backend store, from `database.connection.connect`.
        destination: the artifact destination.
        filters: what to delete.
        registry: the database of the registered models, where it is another one.
        count: also count rows by table, objects and bytes, which reads about as much as deleting them would.

    Raises:
        RefusedIdsError: an id that may not go.
        UserError: no MLflow database, a reference that deleting would leave dangling, a destination that cannot be
            opened, is not there, or not the right one.
    """
    try:
        store = open_store(destination)
    except StoreError as error:
        raise UserError(str(error), "give --artifacts-destination as the tracking server has it") from None
    tables = schema.read(engine)
    tables.check_references(filters.ignore_references)
    selection = Selection(tables, filters)
    with engine.connect() as connection:
        selection.check_ids(connection)
        place = Destination(destination)
        alive = read_alive(connection, selection, place, registry)
        owner = whose(connection, store)
        result = Plan(engine, store, place, tables, selection, alive, owner, registry)
        if not (owner.ours or filters.claim):
            check_destination(connection, tables, place, store)
        for kind, selected in selection.count(connection).items():
            result.counts[kind.name] = selected
        if not filters.include_undated:
            for kind, selected in selection.count(connection, undated=True).items():
                if more := selected - result.counts[kind.name]:
                    result.undated[kind.name] = more
        if count:
            _count(result, connection)
    return result


def whose(connection: Connection, store: Store) -> Ownership:
    """Return whose the destination is; "unmarked" where the store lets nobody look."""
    try:
        return ownership.read(connection, store)
    except StoreError:
        return Ownership("unmarked")


def read_alive(
    connection: Connection, selection: Selection, destination: Destination, registry: Engine | None
) -> Alive:
    """Return the places that must stay.

    Raises:
        UserError: the registry's database holds no MLflow tables.
    """
    alive = Alive.read(connection, selection, destination)
    if not selection.filters.force_registered:
        alive.read_versions(connection, selection.schema, destination)
        if registry is not None:
            with registry.connect() as other:
                alive.read_versions(other, schema.read_connection(other), destination)
    return alive


def folders_of(result: Plan, entity: object, uris: list[str]) -> Folders | str:
    """Return the folders of one thing with what must stay in them, or why all of it must stay."""
    owned: dict[str, tuple[str, ...]] = {}
    if uris and result.owner.state == "moved" and not result.filters.claim:
        return f"it may be alive in another database; the destination: {result.owner}; if it was: --claim"
    for uri in uris:
        try:
            folder = result.destination.folder(str(entity), uri)
        except StrangeLocation as strange:
            return str(strange)
        if why := result.alive.reason(str(entity), folder):
            return why
        owned[folder] = result.alive.kept(str(entity), folder)
    return owned


def pointed_at(
    connection: Connection, result: Plan, blockers: list[tuple[str, Any]], ids: list[Any]
) -> dict[Any, str]:
    """Return which of the ids must stay because a row of a table that is not MLflow's points at them, and why."""
    reasons: dict[Any, str] = {}
    parameters = result.schema.parameters
    for name, query in blockers:
        if ids and connection.execute(query, parameters(ids)).first():
            for item in ids:
                if connection.execute(query, parameters([item])).first():
                    reasons.setdefault(item, f"a row in {name} refers to it, which is no table of MLflow's")
    return reasons


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
    for kind in ALONE:
        if result.selection.asked(kind):
            _count_kind(result, connection, kind)
    _count_experiments(result, connection)
    if "orphans" in result.filters.kinds:
        result.orphan_rows = orphans.count_rows(connection, result.selection)
        connection.rollback()
        _count_orphans(result, connection)
    result.counted = True


def _count_kind(result: Plan, connection: Connection, kind: Kind) -> None:
    statements = result.schema.closure(kind.table, kind.key)
    queries = result.schema.counts(statements)
    blockers = result.schema.blockers(statements, result.filters.ignore_references)
    for page in result.selection.pages(connection, kind):
        for ids in batches(page, BATCH):
            going = []
            folders: dict[str, tuple[str, ...]] = {}
            pointed = pointed_at(connection, result, blockers, ids)
            for entity, uris in result.selection.locations(connection, kind, ids).items():
                outcome = pointed.get(entity) or folders_of(result, entity, uris)
                if isinstance(outcome, str):
                    _skip(result, kind, entity, outcome)
                    continue
                going.append(entity)
                folders.update(outcome)
            _count_rows(result, connection, queries, going)
            _count_objects(result, folders)


def _count_experiments(result: Plan, connection: Connection) -> None:
    statements = result.schema.closure("experiments", "experiment_id", without=("runs",))
    queries = result.schema.counts(statements)
    blockers = result.schema.blockers(statements, result.filters.ignore_references)
    for page in result.selection.pages(connection, EXPERIMENT):
        for experiment in page:
            pointed = pointed_at(connection, result, blockers, [experiment])
            why = pointed.get(experiment) or _experiment_stays(result, connection, experiment)
            owned = why or owned_inside(connection, result, experiment, counted=True)
            if isinstance(owned, str):
                _skip(result, EXPERIMENT, experiment, owned)
                continue
            rows = _count_rows(result, connection, queries, [experiment])
            for kind in (MODEL, TRACE):
                counted = _selected_inside(result, connection, kind, experiment)
                result.counts[kind.name] += rows[kind.table] - counted
            _count_objects(result, owned)


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
    rest = select(runs.c.run_uuid).where(runs.c.experiment_id == experiment, result.selection.others(RUN))
    if name := connection.execute(rest.limit(1)).scalar():
        return f"run {name} in it is not selected"
    return experiment_obstacle(connection, result, experiment)


def owned_inside(
    connection: Connection, result: Plan, experiment: int, *, counted: bool = False
) -> Folders | str:
    """Return the folders of all logged models and traces in an experiment, or why one of them must stay.

    The experiment's own folder is nobody's: only what these own in it, or elsewhere, goes with it.

    Args:
        connection: to the database.
        result: the plan.
        experiment: its id.
        counted: leave out what is selected by itself, for it is counted already.
    """
    owned: dict[str, tuple[str, ...]] = {}
    for kind in (MODEL, TRACE):
        table = result.selection.table(kind)
        if table is None:
            continue
        fresh = result.selection.others(kind)
        inside = select(table.c[kind.key], fresh).where(table.c.experiment_id == experiment)
        if kind is MODEL and (left := connection.execute(_left_by_a_run(result, experiment)).first()):
            return f"logged model {left[0]} in it stays: its run {left[1]} is not deleted; move or delete the model"
        for rows in batches(connection.execute(inside).all(), INSIDE):
            new = {row[0] for row in rows if row[1] or not counted}
            places = result.selection.locations(connection, kind, [row[0] for row in rows])
            for entity, uris in places.items():
                outcome = folders_of(result, entity, uris)
                if isinstance(outcome, str):
                    return f"{kind.name.replace('_', ' ')} {entity} in it stays: {outcome}"
                if entity in new:
                    owned.update(outcome)
    return owned


def _left_by_a_run(result: Plan, experiment: int) -> Select[str, str]:
    """Return the query for what a run that somebody moved to another experiment left in this one: its models."""
    models, runs = (result.schema.tables[name] for name in ("logged_models", "runs"))
    return (
        select(models.c.model_id, runs.c.run_uuid)
        .join(runs, runs.c.run_uuid == models.c.source_run_id)
        .where(
            models.c.experiment_id == experiment,
            models.c.lifecycle_stage != DELETED,
            runs.c.lifecycle_stage != DELETED,
        )
        .limit(1)
    )


def _count_rows(
    result: Plan, connection: Connection, queries: list[tuple[str, Any]], ids: list[Any]
) -> Counter[str]:
    counts: Counter[str] = Counter()
    if ids:
        for table, query in queries:
            counts[table] = int(connection.execute(query, result.schema.parameters(ids)).scalar_one())
        connection.rollback()  # hold no snapshot while the store is slow
    result.rows.update(counts)
    return counts


def _count_objects(result: Plan, folders: Folders) -> None:
    for _, item in objects_in(result.store, folders):
        if isinstance(item, str):
            note = f"the plan could not list everything: {item}"
            if note not in result.notes and len(result.notes) < 20:
                result.notes.append(note)
            continue
        result.objects += 1
        result.bytes += item.size


def _selected_inside(result: Plan, connection: Connection, kind: Kind, experiment: int) -> int:
    """Count what is in the experiment and is also selected by itself."""
    table = result.selection.table(kind)
    if table is None:
        return 0
    inside = select(func.count()).select_from(table)
    inside = inside.where(table.c.experiment_id == experiment, result.selection.condition(kind))
    return int(connection.execute(inside).scalar_one())


def _count_orphans(result: Plan, connection: Connection) -> None:
    folders = objects = size = 0
    try:
        for unowned, strays in orphans.find(connection, result.selection, result.store, result.alive):
            result.left, result.examples = unowned.left, unowned.examples
            folders += len(strays)
            objects += sum(item.objects for item in strays)
            size += sum(item.bytes for item in strays)
    except StoreError as error:
        result.notes.append(f"orphaned artifacts cannot be looked for: {error}")
    if folders and not (result.owner.ours or result.filters.claim):
        result.notes.append(orphans.not_ours(result.owner, folders))
        return
    result.orphan_folders = folders
    result.objects += objects
    result.bytes += size
