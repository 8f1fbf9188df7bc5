"""Delete what a plan selected: artifacts first, then rows, batch by batch.

Every batch is one transaction: lock the rows and check again that they are still selected, delete their
artifacts, delete their rows, commit. A restore that comes first takes its run out of the batch; one that
comes later waits for the commit and then finds nothing. A batch's artifacts are deleted while another
batch's rows are.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import delete, false, func, select, text
from sqlalchemy.exc import DBAPIError

from artifacts import StoreError
from artifacts.base import batches
from cleanup import orphans
from cleanup.indexes import drop_leftovers, missing, temporary_indexes
from cleanup.locations import StrangeLocation
from cleanup.objects import Removal, remove
from cleanup.planning import SHOWN, Plan, Skipped, experiment_blocker, folders_of
from cleanup.schema import Statement, parameters
from cleanup.selection import EXPERIMENT, MODEL, RUN, TRACE, Kind
from console import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

WORKERS = 3  # some wait for the store while others wait for the database
SQLITE_BATCH = 100  # SQLite has one writer: a batch keeps the server waiting
POSTGRESQL_BATCH = 500  # at most: few things are spread over all workers
SMALLEST_BATCH = 50
ATTEMPTS = 4
PATIENCE = 4  # batches that the store may refuse whole before the rest is not tried
UNDELETABLE = "its artifacts cannot be deleted"
RETRIED = {"40001", "40P01"}  # serialization_failure, deadlock_detected (PostgreSQL manual, appendix A)


class Progress(Protocol):
    """Who is told what was done."""

    def advance(self, *, kind: str, things: int, rows: int, objects: int, size: int) -> None:
        """Take in what one batch did."""


@dataclass
class Report:
    """What was done: `deleted` by kind, `rows` by table, `objects` and `bytes`; `skipped` names what stayed.

    `unnamed` counts what stayed beyond those, `failures` what stayed because its artifacts could not be
    deleted, `left` what the filters still select afterwards; `seconds` is how long it took.
    """

    deleted: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    bytes: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    unnamed: int = 0
    notes: list[str] = field(default_factory=list)
    failures: int = 0
    left: int = 0
    seconds: float = 0.0
    interrupted: bool = False


def _forbidden(reason: str) -> UserError:
    return UserError(
        f"this database role may not delete: {reason}", "use the role that the tracking server uses"
    )


class Execution:
    """One run of a plan."""

    def __init__(
        self, plan: Plan, progress: Progress | None = None, check: Callable[[], None] | None = None
    ) -> None:
        self._plan = plan
        self._engine = plan.engine
        self._progress = progress
        self._check = check or (lambda: None)
        self._report = Report()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._refused = 0  # batches in a row of which the store gave up nothing
        self._sqlite = plan.schema.dialect == "sqlite"

    def run(self) -> Report:
        """Do it all. Ctrl-C ends it after the batches that are under way.

        Raises:
            UserError: the database went away, or may not be written.
        """
        started = time.monotonic()
        drop_leftovers(self._engine)
        try:
            self._retrying(self._check_rights)
            with temporary_indexes(self._engine, self._missing_indexes()):
                for kind in (RUN, MODEL, TRACE):
                    if self._plan.selection.table(kind) is not None:
                        self._all(kind)
                self._experiments()
                if "orphans" in self._plan.filters.kinds:
                    self._orphans()
        except KeyboardInterrupt:
            self._report.interrupted = True
        except DBAPIError as error:
            raise self._explain(error) from error
        self._report.seconds = round(time.monotonic() - started, 3)
        with self._engine.connect() as connection:
            self._report.left = sum(
                self._plan.selection.count(connection, kind) for kind in (RUN, MODEL, TRACE, EXPERIMENT)
            )
        return self._report

    def _check_rights(self) -> None:
        """Make sure that the rows may be deleted, before anything in the store is.

        Raises:
            UserError: this role may not delete from a table, or not write to one.
        """
        schema, counts = self._plan.schema, self._plan.counts
        with self._engine.connect() as connection:
            if self._sqlite:
                connection.execute(delete(schema.tables["runs"]).where(false()))
                connection.rollback()
                return
            statements = [
                statement
                for kind in (RUN, MODEL, TRACE, EXPERIMENT)
                if counts[kind.name]
                for statement in schema.closure(kind.table, kind.key)
            ]
            for right, action in (("DELETE", "delete"), ("UPDATE", "null")):
                # names as they are written in SQL: "Mixed case" needs its quotes
                query = text(
                    "SELECT min(name) FROM unnest(CAST(:names AS text[])) AS name"
                    " WHERE NOT has_table_privilege(quote_ident(name), :right)"
                )
                names = sorted({item.table for item in statements if item.action == action})
                if name := connection.execute(query, {"names": names, "right": right}).scalar():
                    raise _forbidden(f"no right to {right} in {name}")

    def _explain(self, error: DBAPIError) -> UserError:
        reason = str(error.orig).strip().splitlines()[0]
        if "permission denied" in reason or "readonly" in reason or "read-only" in reason:
            return _forbidden(reason)
        return UserError(
            f"the database stopped the cleanup: {reason}",
            f"done so far: {dict(self._report.deleted)}; run the same command again to finish",
        )

    # What follows is the one place where rows and objects are deleted.

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            if self._sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
            yield connection
            connection.commit()

    def _retrying(self, work: Callable[[], None]) -> None:
        for attempt in range(ATTEMPTS):
            try:
                work()
            except DBAPIError as error:
                again = getattr(error.orig, "pgcode", None) in RETRIED or "database is locked" in str(
                    error.orig
                )
                if not again or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(0.2 * 2**attempt)
            else:
                return

    def _delete(self, connection: Connection, statements: list[Statement], ids: list[Any]) -> Counter[str]:
        rows: Counter[str] = Counter()
        if not ids:
            return rows
        values = parameters(self._plan.schema.dialect, ids)
        for statement in statements:
            changed = connection.execute(statement.sql, values).rowcount
            if statement.action == "delete":
                rows[statement.table] += changed
        return rows

    def _lock(self, connection: Connection, kind: Kind, ids: list[Any]) -> list[Any]:
        """Lock the rows; return those that are still selected."""
        table = self._plan.schema.tables[kind.table]
        key = table.c[kind.key]
        query = select(key).where(key.in_(ids), self._plan.selection.condition(kind)).order_by(key)
        if not self._sqlite:
            query = query.with_for_update(of=table)
        return list(connection.execute(query).scalars())

    def _batch(self, kind: Kind, statements: list[Statement], ids: list[Any]) -> None:
        self._check()
        skipped: dict[Any, str] = {}
        with self._transaction() as connection:
            locked = self._lock(connection, kind, ids)
            owners: dict[str, Any] = {}
            for entity, uris in self._plan.selection.locations(connection, kind, locked).items():
                found = folders_of(self._plan, entity, uris)
                if isinstance(found, str):
                    skipped[entity] = found
                else:
                    owners.update(dict.fromkeys(found, entity))
            removal = remove(self._plan.store, list(owners))
            for name, reason in removal.failed.items():
                skipped[owners[name]] = f"{UNDELETABLE}: {reason}"
            self._refused = self._refused + 1 if owners and len(removal.failed) == len(owners) else 0
            going = [entity for entity in locked if entity not in skipped]
            rows = self._delete(connection, statements, going)
        self._done(kind.name, len(going), rows, removal, {kind.name: skipped})

    def _done(
        self, kind: str, things: int, rows: Counter[str], removal: Removal, skipped: dict[str, dict[Any, str]]
    ) -> None:
        with self._guard:
            report = self._report
            report.deleted[kind] += things
            report.rows.update(rows)
            report.objects += removal.objects
            report.bytes += removal.bytes
            for name, reasons in skipped.items():
                for entity, reason in reasons.items():
                    report.failures += reason.startswith(UNDELETABLE)
                    if len(report.skipped) < SHOWN:
                        report.skipped.append(Skipped(name, str(entity), reason))
                    else:
                        report.unnamed += 1
            if self._progress:
                self._progress.advance(
                    kind=kind,
                    things=things,
                    rows=sum(rows.values()),
                    objects=removal.objects,
                    size=removal.bytes,
                )

    def _all(self, kind: Kind) -> None:
        statements = self._plan.schema.closure(kind.table, kind.key)
        share = -(-self._plan.counts[kind.name] // WORKERS)
        size = SQLITE_BATCH if self._sqlite else min(max(share, SMALLEST_BATCH), POSTGRESQL_BATCH)

        def work(ids: list[Any]) -> None:
            if self._refused >= PATIENCE:
                raise UserError(
                    f"the artifact store refuses everything: {self._report.skipped[-1].reason}",
                    f"destination: {self._plan.store.uri}",
                    "rows stay as long as their artifacts do; run the same command again when it works",
                )
            if not self._stop.is_set():
                self._retrying(lambda: self._batch(kind, statements, ids))

        if self._sqlite:
            with self._engine.connect() as reader:
                for page in self._plan.selection.pages(reader, kind):
                    for ids in batches(page, size):
                        work(ids)
            return
        with ThreadPoolExecutor(WORKERS, thread_name_prefix=f"cleanup-{kind.name}") as pool:
            running: set[Future[None]] = set()
            try:
                with self._engine.connect() as reader:
                    for page in self._plan.selection.pages(reader, kind):
                        for ids in batches(page, size):
                            if len(running) > WORKERS:
                                finished, running = wait(running, return_when=FIRST_COMPLETED)
                                for future in finished:
                                    future.result()
                            running.add(pool.submit(work, ids))
                for future in running:
                    future.result()
            except BaseException:
                self._stop.set()  # batches that have not begun do nothing
                raise

    def _experiments(self) -> None:
        statements = self._plan.schema.closure("experiments", "experiment_id", without=("runs",))
        with self._engine.connect() as reader:
            for page in self._plan.selection.pages(reader, EXPERIMENT):
                for experiment in page:
                    self._check()
                    self._retrying(lambda number=experiment: self._experiment(number, statements))  # type: ignore[misc]

    def _experiment(self, experiment: int, statements: list[Statement]) -> None:
        """Delete one experiment without runs, with all that is in it, in one transaction."""
        removal, rows, why = Removal(), Counter[str](), None
        with self._transaction() as connection:
            if not self._lock(connection, EXPERIMENT, [experiment]):
                return
            why = self._run_inside(connection, experiment) or experiment_blocker(
                connection, self._plan, experiment
            )
            if why is None:
                removal, why = self._experiment_artifacts(connection, experiment)
            if why is None:
                rows = self._delete(connection, statements, [experiment])
        things = rows["experiments"]
        self._done("experiment", things, rows, removal, {"experiment": {experiment: why} if why else {}})
        for kind in (MODEL, TRACE):
            self._report.deleted[kind.name] += rows[kind.table]

    def _run_inside(self, connection: Connection, experiment: int) -> str | None:
        runs = self._plan.schema.tables["runs"]
        query = select(runs.c.run_uuid, runs.c.lifecycle_stage).where(runs.c.experiment_id == experiment)
        row = connection.execute(query.order_by(runs.c.lifecycle_stage).limit(1)).first()
        if row is None:
            return None
        if row[1] == "active":
            return f"run {row[0]} in it is not deleted: delete or move that run first"
        return f"run {row[0]} in it stays"

    def _experiment_artifacts(self, connection: Connection, experiment: int) -> tuple[Removal, str | None]:
        """Delete the experiment's folder, and what models and traces in it have elsewhere."""
        plan = self._plan
        uris = plan.selection.locations(connection, EXPERIMENT, [experiment])[experiment]
        whole = ""
        try:
            for uri in uris:
                key = plan.destination.key(uri)
                if key.rpartition("/")[2] == str(experiment):
                    whole = key + "/"
        except StrangeLocation as strange:
            return Removal(), str(strange)
        total = remove(plan.store, [whole]) if whole else Removal()
        for kind in (MODEL, TRACE):
            table = plan.selection.table(kind)
            if table is None or total.failed:
                continue
            inside = select(table.c[kind.key]).where(table.c.experiment_id == experiment)
            for ids in (
                connection.execute(inside.execution_options(yield_per=1000)).scalars().partitions(1000)
            ):
                folders: list[str] = []
                for entity, places in plan.selection.locations(connection, kind, list(ids)).items():
                    found = folders_of(plan, entity, places)
                    if isinstance(found, str):
                        return total, f"{kind.name} {entity} in it stays: {found}"
                    folders += [name for name in found if not (whole and name.startswith(whole))]
                more = remove(plan.store, folders)
                total = Removal(
                    total.objects + more.objects, total.bytes + more.bytes, total.failed | more.failed
                )
        if total.failed:
            return total, f"{UNDELETABLE}: {next(iter(total.failed.values()))}"
        return total, None

    def _orphans(self) -> None:
        plan = self._plan
        self._check()

        def rows() -> None:
            with self._transaction() as connection:
                mended, deleted = orphans.delete_rows(connection, plan.selection)
            self._done("orphan_rows", mended, deleted, Removal(), {})

        self._retrying(rows)
        held: list[orphans.Folder] = []
        unowned = orphans.Unowned()
        try:
            with self._engine.connect() as connection:
                for unowned, found in orphans.find(connection, plan.selection, plan.store, plan.protected):
                    held += found
                    if held and (unowned.owned or plan.filters.foreign_orphans):
                        self._remove_orphans(held)
                        held = []
        except StoreError as error:
            self._report.notes.append(f"orphaned artifacts could not be looked for: {error}")
        if held:
            self._report.notes.append(orphans.FOREIGN.format(count=len(held)))
        for reason, count in unowned.left.items():
            self._report.notes.append(f"{count} left alone: {reason} (such as {unowned.examples[reason]})")

    def _remove_orphans(self, folders: list[orphans.Folder]) -> None:
        self._check()
        removal = remove(self._plan.store, [folder.name for folder in folders])
        skipped = {name: f"{UNDELETABLE}: {reason}" for name, reason in removal.failed.items()}
        self._done(
            "orphan_artifacts",
            len(folders) - len(skipped),
            Counter(),
            removal,
            {"orphan_artifacts": skipped},
        )

    def _missing_indexes(self) -> list[tuple[str, str]]:
        plan = self._plan
        expected = {kind.table: plan.counts[kind.name] for kind in (RUN, MODEL, TRACE, EXPERIMENT)}
        experiments = plan.selection.condition(EXPERIMENT)
        with self._engine.connect() as connection:
            for kind in (MODEL, TRACE):  # those that go with their experiment
                table = plan.selection.table(kind)
                if table is None or not expected["experiments"]:
                    continue
                ids = select(plan.schema.tables["experiments"].c.experiment_id).where(experiments)
                inside = select(func.count()).select_from(table).where(table.c.experiment_id.in_(ids))
                expected[kind.table] += int(connection.execute(inside).scalar_one())
            if "spans" in plan.schema.tables:
                expected["spans"] = expected.get("trace_info", 0) * 10
            return missing(connection, plan.schema, expected)


def execute(
    plan: Plan, *, progress: Progress | None = None, check: Callable[[], None] | None = None
) -> Report:
    """Delete what the plan selected, as far as it is still selected.

    Args:
        plan: from `cleanup.plan`.
        progress: is told what each batch did.
        check: called before each batch; raises if the maintenance lock was lost.

    Raises:
        UserError: the database went away or may not be written. What was committed stays deleted.
    """
    return Execution(plan, progress, check).run()
