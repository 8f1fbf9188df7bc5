"""Which rows the filters select: the same conditions for the plan, for the deletion and for the re-check."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Table, and_, exists, false, func, or_, select, true

from artifacts.base import batches
from cleanup.filters import Filters, parse_age
from cleanup.report import Skipped
from console import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection

    from cleanup.schema import Schema

SHOWN_IDS = 20
DELETED = "deleted"  # mlflow.entities.lifecycle_stage.LifecycleStage
TRACE_LOCATION_TAGS = ("mlflow.artifactLocation", "mlflow.trace.archiveLocation")


@dataclass(frozen=True)
class Kind:
    """Something that can be deleted for good: where it is kept, and where its artifacts are."""

    name: str
    table: str
    key: str
    location: str | None
    deleted_at: str  # a column, in milliseconds since the epoch


RUN = Kind("run", "runs", "run_uuid", "artifact_uri", "deleted_time")
MODEL = Kind("logged_model", "logged_models", "model_id", "artifact_location", "last_updated_timestamp_ms")
TRACE = Kind("trace", "trace_info", "request_id", None, "timestamp_ms")
EXPERIMENT = Kind("experiment", "experiments", "experiment_id", "artifact_location", "last_update_time")
# no user deletes a job: it ends (mlflow.entities._job_status), and ages from its beginning as for ``mlflow gc --jobs``
JOB = Kind("job", "jobs", "id", None, "creation_time")
ENDED = (2, 3, 4, 5)  # succeeded, failed, timed out, cancelled
BY_NAME = {"runs": RUN, "models": MODEL, "traces": TRACE, "experiments": EXPERIMENT, "jobs": JOB}
#: what is deleted by itself, in this order; experiments come last, with what is in them
ALONE = (RUN, MODEL, TRACE, JOB)


class RefusedIdsError(UserError):
    """Ids that were asked for and may not go. `refused` names each with its reason."""

    def __init__(self, refused: list[Skipped]) -> None:
        first, count = refused[0], len(refused)
        super().__init__(
            f"{first.kind} {first.id} cannot be cleaned up: {first.reason}"
            if count == 1
            else f"{count} of the ids that were given cannot be cleaned up",
            *(f"{item.kind} {item.id}: {item.reason}" for item in refused[:SHOWN_IDS] if count > 1),
            *((f"and {count - SHOWN_IDS} more; --json names all",) if count > SHOWN_IDS else ()),
            "all ids are checked first: nothing was deleted",
        )
        self.refused = refused


class Selection:
    """The filters, applied to one schema at one moment."""

    def __init__(self, schema: Schema, filters: Filters, now: float | None = None) -> None:
        self.schema = schema
        self.filters = filters
        #: in seconds since the epoch; ages count back from here
        self.now = time.time() if now is None else now

    def table(self, kind: Kind) -> Table | None:
        """Return the kind's table, or None where this schema has none."""
        return self.schema.tables.get(kind.table)

    def _old_enough(self, kind: Kind, *, undated: bool) -> ColumnElement[bool]:
        table = self.schema.tables[kind.table]
        if kind.deleted_at not in table.c:
            return true() if undated else false()
        column = table.c[kind.deleted_at]
        age = parse_age(self.filters.older_than) if self.filters.older_than else 0
        old = column <= int((self.now - age) * 1000)
        return or_(old, column.is_(None)) if undated else old

    def _experiments(self) -> list[int]:
        return [int(item) for item in self.filters.experiment_ids or ()]

    def condition(self, kind: Kind, *, undated: bool | None = None) -> ColumnElement[bool]:
        """Return which rows of the kind's table are selected.

        Args:
            kind: one whose table exists.
            undated: with those that have no deletion time (default: as the filters say).
        """
        undated = self.filters.include_undated if undated is None else undated
        kinds = self.filters.kinds
        table = self.schema.tables[kind.table]
        if kind is TRACE:
            scope: ColumnElement[bool] = true() if "traces" in kinds else false()
            if self.filters.experiment_ids:
                scope = and_(scope, table.c.experiment_id.in_(self._experiments()))
            return and_(scope, self._old_enough(kind, undated=undated))
        if kind is JOB:
            scope = table.c.status.in_(ENDED) if "jobs" in kinds else false()
            return and_(scope, self._old_enough(kind, undated=undated))
        if kind is RUN:
            scope = self._run_scope(table, undated=undated)
        elif kind is MODEL:
            scope = true() if "models" in kinds else false()
            if self.filters.experiment_ids:
                scope = and_(scope, table.c.experiment_id.in_(self._experiments()))
        else:
            scope = true() if "experiments" in kinds else false()
            if self.filters.experiment_ids:
                scope = and_(scope, table.c.experiment_id.in_(self._experiments()))
        return and_(scope, table.c.lifecycle_stage == DELETED, self._old_enough(kind, undated=undated))

    def asked(self, kind: Kind) -> bool:
        """Whether any row of the kind can be selected: asking a database that is far away costs time."""
        if self.table(kind) is None:
            return False
        return kind in {RUN, EXPERIMENT} or any(BY_NAME.get(name) is kind for name in self.filters.kinds)

    def others(self, kind: Kind) -> ColumnElement[bool]:
        """Return which rows of the kind's table are not selected, those without a deletion time among them."""
        return self.condition(kind).is_not(true())

    def _run_scope(self, runs: Table, *, undated: bool) -> ColumnElement[bool]:
        kinds = self.filters.kinds
        scopes: list[ColumnElement[bool]] = []
        if self.filters.run_ids:
            scopes.append(runs.c.run_uuid.in_(self.filters.run_ids))
        elif "runs" in kinds:
            named = self._experiments()
            scopes.append(runs.c.experiment_id.in_(named) if named else true())
        if "experiments" in kinds:
            experiments = self.schema.tables["experiments"]
            live = runs.alias("live")
            has_live = exists(
                select(1).where(
                    live.c.experiment_id == experiments.c.experiment_id, live.c.lifecycle_stage != DELETED
                )
            )
            inside = select(experiments.c.experiment_id).where(
                self.condition(EXPERIMENT, undated=undated), ~has_live
            )
            scopes.append(runs.c.experiment_id.in_(inside))
        return or_(false(), *scopes)

    def count(self, connection: Connection, *, undated: bool | None = None) -> dict[Kind, int]:
        """Return how many rows of each kind are selected."""
        asked = [kind for kind in (*ALONE, EXPERIMENT) if self.asked(kind)]
        counts = (
            select(func.count())
            .select_from(self.schema.tables[kind.table])
            .where(self.condition(kind, undated=undated))
            .scalar_subquery()
            for kind in asked
        )
        return dict(zip(asked, connection.execute(select(*counts)).one(), strict=True))

    def pages(self, connection: Connection, kind: Kind, size: int = 20_000) -> Iterator[list[Any]]:
        """Yield the selected keys by experiment and key, so that a batch's artifacts lie side by side.

        A page is read at a time and no cursor stays open, so memory is flat and no snapshot is held.
        """
        if not self.asked(kind):
            return
        table = self.schema.tables[kind.table]
        key = table.c[kind.key]
        experiment = table.c.get("experiment_id", key)
        order = (key,) if kind in {EXPERIMENT, JOB} else (experiment, key)
        after: ColumnElement[bool] = true()
        while True:
            query = select(*order).where(self.condition(kind), after).order_by(*order).limit(size)
            rows = connection.execute(query).all()
            connection.rollback()
            if rows:
                yield [row[-1] for row in rows]
            if len(rows) < size:
                return
            last = rows[-1]
            if len(order) == 1:
                after = key > last[0]
            else:
                after = or_(experiment > last[0], and_(experiment == last[0], key > last[1]))

    def locations(self, connection: Connection, kind: Kind, ids: list[Any]) -> dict[Any, list[str]]:
        """Return the artifact locations that the database holds for each id."""
        located: dict[Any, list[str]] = {item: [] for item in ids}
        if kind is JOB:
            return located
        if kind.location is None:
            if "trace_tags" not in self.schema.tables:  # neither are there traces then
                return located
            tags = self.schema.tables["trace_tags"]
            query = select(tags.c.request_id, tags.c.value).where(
                tags.c.key.in_(TRACE_LOCATION_TAGS), tags.c.request_id.in_(ids)
            )
        else:
            table = self.schema.tables[kind.table]
            query = select(table.c[kind.key], table.c[kind.location]).where(table.c[kind.key].in_(ids))
        for item, location in connection.execute(query):
            if location:
                located[item].append(location)
        if kind is TRACE and (unsaid := [item for item, places in located.items() if not places]):
            for item, place in self._trace_layout(connection, unsaid):
                located[item].append(place)
        return located

    def _trace_layout(self, connection: Connection, ids: list[Any]) -> Iterator[tuple[Any, str]]:
        """Yield where MLflow keeps a trace that says nothing itself (mlflow.store.tracking.sqlalchemy_store)."""
        traces, experiments = self.schema.tables["trace_info"], self.schema.tables["experiments"]
        query = (
            select(traces.c.request_id, experiments.c.artifact_location)
            .join(experiments, experiments.c.experiment_id == traces.c.experiment_id)
            .where(traces.c.request_id.in_(ids))
        )
        for item, location in connection.execute(query):
            if location:
                yield item, f"{location.rstrip('/')}/traces/{item}/artifacts"

    def check_ids(self, connection: Connection) -> None:
        """Check every id that was given before anything is deleted: they are all taken, or none.

        Raises:
            RefusedIdsError: an id that does not exist, or names something that nobody deleted, or not long enough ago.
        """
        refused: list[Skipped] = []
        if self.filters.run_ids:
            refused += self._refused(connection, RUN, self.filters.run_ids)
        if self.filters.experiment_ids:
            refused += self._refused(connection, EXPERIMENT, self._experiments())
        if refused:
            raise RefusedIdsError(refused)

    def _refused(self, connection: Connection, kind: Kind, ids: Collection[Any]) -> Iterator[Skipped]:
        table = self.schema.tables[kind.table]
        dated = table.c[kind.deleted_at].is_not(None) if kind.deleted_at in table.c else false()
        columns = (table.c[kind.key], table.c.lifecycle_stage, dated, self.condition(kind).is_(true()))
        known: dict[Any, Any] = {}
        for some in batches(ids, 1000):
            rows = connection.execute(select(*columns).where(table.c[kind.key].in_(some)))
            known.update((row[0], row) for row in rows)
        for item in ids:
            if item not in known:
                why = f"there is no {kind.name} with this id"
            elif kind is EXPERIMENT and "experiments" not in self.filters.kinds:
                continue  # they only say where
            elif known[item][1] != DELETED:
                why = f"it is not deleted: mlflow {kind.table} delete --{kind.name}-id {item}"
            elif known[item][3]:
                continue
            elif known[item][2]:
                why = f"it was deleted less than {self.filters.older_than or '0m'} ago"
            else:
                why = "it has no deletion time: --include-undated takes it all the same"
            yield Skipped(kind.name, str(item), why)
