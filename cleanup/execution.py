"""Delete what a plan selected: rows and artifacts, batch by batch.

Every batch is one transaction: lock the rows and check again that they are still selected, delete them, delete their
artifacts, commit. What the database refuses is refused before an object goes, and what the store refuses keeps its
rows. A restore that comes first takes its run out of the batch; one that comes later waits for the commit and then
finds nothing. A batch's artifacts are deleted while another batch's rows are.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from artifacts import StoreError
from artifacts.base import batches
from cleanup import orphans
from cleanup.indexes import drop_leftovers, missing, temporary_indexes
from cleanup.objects import Folders, Removal, remove
from cleanup.planning import (
    Plan,
    experiment_obstacle,
    folders_of,
    owned_inside,
    pointed_at,
    read_alive,
)
from cleanup.report import Progress, Report
from cleanup.selection import ALONE, EXPERIMENT, MODEL, TRACE, Kind
from console import UserError
from database import ownership

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from cleanup.schema import Statement

WORKERS = 3  # some wait for the store while others wait for the database
ONE_WRITER_BATCH = 100  # where a batch keeps the server waiting
LARGEST_BATCH = 500
SMALLEST_BATCH = 50  # few things are spread over all workers
ATTEMPTS = 4
LOCK_PATIENCE = 60  # seconds
PATIENCE = 4  # batches that the store may refuse whole before the rest is not tried
Blockers = list[tuple[str, Any]]
RIGHTS = {"delete": "DELETE", "null": "UPDATE"}


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
        self._language = plan.schema.language

    def run(self) -> Report:
        """Do it all. Ctrl-C ends it after the batches that are under way.

        Raises:
            UserError: the database went away, or may not be written.
        """
        started = time.monotonic()
        drop_leftovers(self._engine)
        with self._engine.connect() as connection:  # the plan may have waited for its answer
            plan = self._plan
            plan.alive = read_alive(connection, plan.selection, plan.destination, plan.registry)
        try:
            self._retrying(self._check_rights)
            if self._plan.filters.claim and not self._plan.owner.ours:
                ownership.claim(self._engine, self._plan.store)
            with temporary_indexes(self._engine, self._missing_indexes()):
                for kind in ALONE:
                    if self._plan.selection.asked(kind):
                        self._all(kind)
                self._experiments()
                if "orphans" in self._plan.filters.kinds:
                    self._orphans()
        except KeyboardInterrupt:
            self._report.interrupted = True
        except DBAPIError as error:
            raise self._explain(error) from error
        except StoreError as error:
            raise UserError(f"the destination could not be claimed: {error}") from None
        self._report.seconds = round(time.monotonic() - started, 3)
        with self._engine.connect() as connection:
            self._report.left = sum(self._plan.selection.count(connection).values())
        return self._report

    def _check_rights(self) -> None:
        """Make sure that the rows may be deleted, before anything in the store is.

        Raises:
            UserError: this role may not delete from a table, or not write to one.
        """
        statements = [
            statement
            for kind in (*ALONE, EXPERIMENT)
            if self._plan.counts[kind.name]
            for statement in self._plan.schema.closure(kind.table, kind.key)
        ]
        needed = sorted({(RIGHTS[item.action], item.table) for item in statements})
        with self._engine.connect() as connection:
            if right := self._language.missing_right(connection, needed):
                raise _forbidden(f"no right to {right}")

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
            self._language.begin_writing(connection, LOCK_PATIENCE)
            yield connection
            connection.commit()

    def _retrying(self, work: Callable[[], None]) -> None:
        for attempt in range(ATTEMPTS):
            try:
                work()
            except DBAPIError as error:
                if not self._language.passes(error) or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(0.2 * 2**attempt)
            else:
                return

    def _delete(self, connection: Connection, statements: list[Statement], ids: list[Any]) -> Counter[str]:
        rows: Counter[str] = Counter()
        if not ids:
            return rows
        values = self._plan.schema.parameters(ids)
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
        return list(connection.execute(self._language.locking(query, table)).scalars())

    def _both(
        self, connection: Connection, statements: list[Statement], owned: dict[Any, Folders]
    ) -> tuple[Counter[str], Removal]:
        """Delete the rows of some ids, then the artifacts, which keep the rows of what cannot be deleted."""
        savepoint = connection.begin_nested()
        rows = self._delete(connection, statements, list(owned))
        if self._plan.schema.deferred:  # at the commit it is too late: the objects are gone by then
            connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        folders = {name: kept for mine in owned.values() for name, kept in mine.items()}
        removal = remove(self._plan.store, folders)
        if removal.failed:
            savepoint.rollback()
            gone = [item for item, mine in owned.items() if not removal.failed.keys() & mine.keys()]
            rows = self._delete(connection, statements, gone)
        return rows, removal

    def _batch(self, kind: Kind, statements: list[Statement], blockers: Blockers, ids: list[Any]) -> None:
        self._check()
        skipped: dict[Any, str] = {}
        with self._transaction() as connection:
            locked = self._lock(connection, kind, ids)
            skipped.update(pointed_at(connection, self._plan, blockers, locked))
            owned: dict[Any, Folders] = {}
            for entity, uris in self._plan.selection.locations(connection, kind, locked).items():
                outcome = skipped.get(entity) or folders_of(self._plan, entity, uris)
                if isinstance(outcome, str):
                    skipped[entity] = outcome
                else:
                    owned[entity] = outcome
            rows, removal = self._both(connection, statements, owned)
        refused: dict[Any, str] = {}
        for entity, folders in owned.items():
            for name in removal.failed.keys() & folders.keys():
                refused[entity] = removal.failed[name]
        self._refused = self._refused + 1 if owned and len(refused) == len(owned) else 0
        self._done(kind.name, len(owned) - len(refused), rows, removal, skipped, refused)

    def _done(
        self,
        kind: str,
        things: int,
        rows: Counter[str],
        removal: Removal,
        skipped: dict[Any, str] | None = None,
        refused: dict[Any, str] | None = None,
    ) -> None:
        with self._guard:
            self._report.add(kind, things, rows, removal, skipped or {}, refused or {})
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
        blockers = self._plan.schema.blockers(statements, self._plan.filters.ignore_references)
        alone = self._language.one_writer
        share = -(-self._plan.counts[kind.name] // WORKERS)
        size = ONE_WRITER_BATCH if alone else min(max(share, SMALLEST_BATCH), LARGEST_BATCH)

        def work(ids: list[Any]) -> None:
            if self._refused >= PATIENCE:
                raise UserError(
                    f"the artifact store refuses everything: {self._report.skipped[-1].reason}",
                    f"destination: {self._plan.store.uri}",
                    "rows stay as long as their artifacts do; run the same command again when it works",
                )
            if not self._stop.is_set():
                self._retrying(lambda: self._batch(kind, statements, blockers, ids))

        if alone:
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
        blockers = self._plan.schema.blockers(statements, self._plan.filters.ignore_references)
        with self._engine.connect() as reader:
            for page in self._plan.selection.pages(reader, EXPERIMENT):
                for experiment in page:
                    self._check()
                    self._retrying(
                        lambda number=experiment: self._experiment(number, statements, blockers)  # type: ignore[misc]
                    )

    def _experiment(self, experiment: int, statements: list[Statement], blockers: Blockers) -> None:
        """Delete one experiment without runs, with all that is in it, in one transaction."""
        plan, removal, rows, why = self._plan, Removal(), Counter[str](), None
        with self._transaction() as connection:
            if not self._lock(connection, EXPERIMENT, [experiment]):
                return
            why = (
                self._run_inside(connection, experiment)
                or pointed_at(connection, plan, blockers, [experiment]).get(experiment)
                or experiment_obstacle(connection, plan, experiment)
            )
            owned = why or owned_inside(connection, plan, experiment)
            if isinstance(owned, str):
                why = owned
            else:
                rows, removal = self._both(connection, statements, {experiment: owned})
        refused = dict.fromkeys(
            [experiment] if removal.failed else [], next(iter(removal.failed.values()), "")
        )
        skipped = {experiment: why} if why else {}
        self._done("experiment", rows["experiments"], rows, removal, skipped, refused)
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

    def _orphans(self) -> None:
        plan = self._plan
        self._check()

        def rows() -> None:
            with self._transaction() as connection:
                mended, deleted = orphans.delete_rows(connection, plan.selection)
            self._done("orphan_rows", mended, deleted, Removal())

        self._retrying(rows)
        held, owner = 0, plan.owner
        unowned = orphans.Unowned()
        try:
            with self._engine.connect() as connection:
                owner = ownership.read(connection, plan.store)
                for seen, strays in orphans.find(connection, plan.selection, plan.store, plan.alive):
                    unowned = seen
                    if not owner.ours:
                        held += len(strays)
                    elif strays:
                        self._remove_orphans(strays)
        except StoreError as error:
            self._report.notes.append(f"orphaned artifacts could not be looked for: {error}")
        if held:
            self._report.notes.append(orphans.not_ours(owner, held))
        for reason, count in unowned.left.items():
            self._report.notes.append(f"{count} left alone: {reason} (such as {unowned.examples[reason]})")

    def _remove_orphans(self, folders: list[orphans.Folder]) -> None:
        self._check()
        removal = remove(self._plan.store, {folder.name: () for folder in folders})
        gone = len(folders) - len(removal.failed)
        self._done("orphan_artifacts", gone, Counter(), removal, refused=dict(removal.failed))

    def _missing_indexes(self) -> list[tuple[str, str]]:
        plan = self._plan
        expected = {kind.table: plan.counts[kind.name] for kind in (*ALONE, EXPERIMENT)}
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
