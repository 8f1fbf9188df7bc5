"""Put a backup set back: everything is verified before anything is touched, and counted again afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backups import sets
from backups.backup import write_set
from backups.loading import check_known, check_pair, load_set
from console import UserError, note, size
from database.address import normalize, redact
from database.connection import connect, driver_errors, is_missing
from database.dialect import dialect_of, maintenance_lock
from database.inspection import source_of
from database.locations import move
from database.others import Others
from database.schema import read_schema
from files import sha256

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from backups.contract import Place
    from backups.sets import BackupSet
    from database.revision import Schema


@dataclass(frozen=True)
class Plan:
    """What a restore would replace.

    Attributes:
        backup: the set.
        database: the backend store, without a password.
        schema: the state of its schema; None where there is no file yet.
        rows: of each table of MLflow's.
        users: who else uses the database at this moment, a line each.
        others: what lies beside MLflow's tables.
        identity: what tells the database from every other, where its kind has that.
    """

    backup: BackupSet
    database: str
    schema: Schema | None = None
    rows: dict[str, int] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    others: Others = field(default_factory=Others)
    identity: dict[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """Return what is equal as long as the same would be replaced by the same; rows may come and go meanwhile."""
        parts = [
            self.backup.manifest["checksum"],
            self.database,
            self.identity,
            self.schema and self.schema.revision,
            self.others.relations,
            self.others.views,
            self.others.keys,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def lines(self, destination: str | None) -> list[str]:
        """Return the plan as a person reads it."""
        now = sum(self.rows.values())
        then = sum(self.backup.database["rows"].values())
        state = self.schema.state if self.schema else "no file yet"
        text = [f"restore {self.backup.where} of {self.backup.manifest['created']}"]
        text.append(f"  database   {self.database}: {now} rows ({state}) become {then} rows")
        artifacts = self.backup.artifacts
        if artifacts and destination:
            amount = f"{artifacts['objects']} objects, {size(artifacts['bytes'])}"
            text.append(f"  artifacts  {redact(destination)}: {amount}")
        elif artifacts:
            text.append("  artifacts  left alone: no --artifacts-destination")
        return [*text, *self.others.lines(), *(f"  in use by  {user}" for user in self.users)]

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``restore --plan`` shows."""
        return {
            "backup": self.backup.as_json(),
            "database": self.database,
            "state": self.schema.state if self.schema else "empty",
            "rows": self.rows,
            "users": self.users,
            "kept": [name for _, name in self.others.relations],
            "blocked": [key._asdict() for key in self.others.keys],
            "fingerprint": self.fingerprint,
        }


def plan(uri: str, backup: Path | BackupSet) -> Plan:
    """Look at a set and at the database it would replace; changes nothing.

    Raises:
        UserError: no usable set, a database that cannot be reached, or a set that this MLflow cannot use.
    """
    one = _opened(backup)
    check_pair(normalize(uri).get_backend_name(), one)
    if is_missing(uri):
        return Plan(one, normalize(uri).render_as_string(hide_password=True))
    engine = connect(uri)
    try:
        return _plan(engine, one)
    finally:
        engine.dispose()


def _plan(engine: Engine, one: BackupSet) -> Plan:
    database = dialect_of(engine)
    return Plan(
        one,
        source_of(engine),
        read_schema(engine),
        database.rows(),
        database.users(),
        database.others(),
        database.identity(),
    )


def _opened(backup: Path | BackupSet) -> BackupSet:
    return sets.open_set(backup.absolute()) if isinstance(backup, Path) else backup


@dataclass(frozen=True)
class Result:
    """What a restore did."""

    backup: BackupSet
    schema: Schema
    rows: int
    artifacts: dict[str, Any] | None
    keys: list[str]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``restore --json`` shows."""
        return {
            "backup": self.backup.where,
            "state": self.schema.state,
            "revision": self.schema.revision,
            "rows": self.rows,
            "artifacts": self.artifacts,
            "keys": self.keys,
            "seconds": self.seconds,
        }


def restore(
    uri: str,
    backup: Path | BackupSet,
    *,
    destination: str | None = None,
    artifact_root: str | None = None,
    keys_to: Path | None = None,
    to_head: bool = False,
    wait_seconds: float = 0,
    pg_command: str | None = None,
    save_to: Place | None = None,
    shown: str = "",
) -> Result:
    """Verify a set, then make database, artifacts and keys what it holds.

    Objects that are missing are added where nothing refers to them yet, while the database is loaded; when all of
    them are there, one transaction replaces the database; then come objects that differ. Objects that the set does
    not name are left: ``invoke cleanup`` finds those that nothing refers to.

    Args:
        uri: the backend store; a set of a SQLite database also fits an MLflow database in PostgreSQL.
        backup: the set, or its folder.
        destination: the artifact destination; None leaves artifacts alone.
        artifact_root: how rows shall name a destination that is another one than the set's: ``mlflow-artifacts:/``
            where a server serves it; None for its own address.
        keys_to: where to put the set's key files; None leaves them in the set.
        to_head: migrate a schema that is behind; the set is its backup.
        wait_seconds: how long to wait for another process that holds the maintenance lock.
        pg_command: see `database.programs.find_programs`.
        save_to: where what is replaced is backed up first; None for nowhere.
        shown: the `Plan.fingerprint` that somebody agreed to; nothing is done if it would be another one now.

    Raises:
        UserError: the set is damaged or does not fit, something is not as it was shown, or loading failed; then the
            database is as it was.
    """
    begun = time.monotonic()
    one = _opened(backup)
    check_pair(normalize(uri).get_backend_name(), one)
    if to_head:
        check_known(one)
    engine = connect(uri, create=True)
    try:
        with driver_errors("restore"), maintenance_lock(engine, "restore", wait_seconds) as lock:
            before = _plan(engine, one)
            if shown and before.fingerprint != shown:
                raise UserError(
                    "the set or the database is not what the plan showed; nothing was changed", "run it again"
                )
            before.others.refuse_keys()
            sets.verify(one)
            artifacts = None
            if destination is not None and one.artifacts:
                from backups.destination import tell_outside
                from backups.object_restore import Restore

                objects = Restore(destination, one)
                _save(engine, before, save_to, destination if objects.replaces else None, pg_command)
                with objects.adding() as finish:

                    def ready() -> None:
                        finish()
                        lock.check()

                    expected = load_set(engine, one, pg_command=pg_command, to_head=to_head, ready=ready)
                if objects.source != one.artifacts["source"]:
                    old = one.artifacts.get("roots", [one.artifacts["source"]])
                    objects.moved = move(engine, old, artifact_root or objects.source)
                artifacts = objects.replace_different()
                tell_outside(engine, destination, "are named by the database and were not restored")
            else:
                _save(engine, before, save_to, None, pg_command)
                expected = load_set(engine, one, pg_command=pg_command, to_head=to_head, ready=lock.check)
            keys = _restore_keys(one, keys_to) if keys_to else []
            rows = sum(_recount(engine, expected).values())
            return Result(one, read_schema(engine), rows, artifacts, keys, round(time.monotonic() - begun, 1))
    finally:
        engine.dispose()


def _save(
    engine: Engine, before: Plan, to: Place | None, destination: str | None, pg_command: str | None
) -> None:
    """Back up what will be replaced: the database if it holds anything, the artifacts if one changes."""
    if to is not None and (any(before.rows.values()) or destination):
        saved = write_set(engine, to, "before-restore", destination=destination, pg_command=pg_command)
        note(f"what is replaced was backed up to {saved.where}")


def _recount(engine: Engine, expected: dict[str, int]) -> dict[str, int]:
    """Count the rows again.

    Raises:
        UserError: a table lacks rows. (More is fine: a server may be writing already.)
    """
    rows = dialect_of(engine).rows()
    for table, number in expected.items():
        if rows.get(table, 0) < number:
            raise UserError(f"after the restore, table {table} has {rows.get(table, 0)} of {number} rows")
    return rows


def _restore_keys(one: BackupSet, to: Path) -> list[str]:
    restored = []
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    for key in one.manifest["keys"]:
        source, target = sets.inside(one, f"keys/{key['name']}"), to / key["name"]
        if target.exists() and sha256(target) == key["sha256"]:
            continue
        if target.exists():
            target.rename(target.with_name(f"{target.name}.before-restore"))
        shutil.copyfile(source, target)
        target.chmod(0o600)
        restored.append(str(target))
    return restored
