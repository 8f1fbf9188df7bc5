"""Put a backup set back: everything is verified before anything is touched, and counted again afterwards."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backups import sets
from backups.backup import NONE, write_set
from backups.databases import TRACKING, locked, opened
from backups.loading import Load, check_known
from backups.plan import Plan, opened_set, refuse_shared, targets_of, wanted
from console import UserError, note
from database.connection import driver_errors
from database.dialect import dialect_of
from database.locations import move
from database.schema import read_schema
from files import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Engine

    from backups.contract import Place
    from backups.sets import BackupSet
    from database.revision import Schema


@dataclass(frozen=True)
class Result:
    """What a restore did; `schemas` and `rows` by the name of the database."""

    backup: BackupSet
    schemas: dict[str, Schema]
    rows_of: dict[str, int]
    artifacts: dict[str, Any] | None
    keys: list[str]
    seconds: float

    @property
    def schema(self) -> Schema:
        """The schema of the tracking store."""
        return self.schemas[TRACKING]

    @property
    def rows(self) -> int:
        """How many rows of MLflow's all of the databases have."""
        return sum(self.rows_of.values())

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``restore --json`` shows."""
        return {
            "backup": self.backup.where,
            "state": self.schema.state,
            "revision": self.schema.revision,
            "rows": self.rows,
            "databases": {
                name: {"state": schema.state, "revision": schema.revision, "rows": self.rows_of[name]}
                for name, schema in self.schemas.items()
                if name != TRACKING
            },
            "artifacts": self.artifacts,
            "keys": self.keys,
            "seconds": self.seconds,
        }


def restore(
    uri: str,
    backup: Path | BackupSet,
    *,
    further: Mapping[str, str] = NONE,
    leave_out: Sequence[str] = (),
    destination: str | None = None,
    artifact_root: str | None = None,
    keys_to: Path | None = None,
    to_head: bool = False,
    wait_seconds: float = 0,
    pg_command: str | None = None,
    save_to: Place | None = None,
    shown: str = "",
) -> Result:
    """Verify a set, then make databases, artifacts and keys what it holds.

    Objects that are missing are added where nothing refers to them yet, while the tracking store is loaded; when all
    of them are there, one transaction replaces it; then come the other databases, one transaction each, and objects
    that differ. Objects that the set does not name are left: ``invoke cleanup`` finds those that nothing refers to.

    Args:
        uri: the backend store; a set of a SQLite database also fits an MLflow database in PostgreSQL.
        backup: the set, or its folder.
        further: the server's other databases by name; see `backups.databases`.
        leave_out: names of databases that stay in the set.
        destination: the artifact destination; None leaves artifacts alone.
        artifact_root: how rows shall name a destination that is another one than the set's: ``mlflow-artifacts:/``
            where a server serves it; None for its own address.
        keys_to: where to put the set's key files; None leaves them in the set.
        to_head: migrate a schema that is behind; the set is its backup.
        wait_seconds: how long to wait for another process that holds a maintenance lock.
        pg_command: see `database.programs.find_programs`.
        save_to: where what is replaced is backed up first; None for nowhere.
        shown: the `Plan.fingerprint` that somebody agreed to; nothing is done if it would be another one now.

    Raises:
        UserError: the set is damaged or does not fit, something is not as it was shown, or loading failed; then the
            database is as it was, and the message names those that were replaced before it.
    """
    begun = time.monotonic()
    chosen = opened_set(backup)
    uris = wanted(chosen, {TRACKING: uri, **further}, leave_out)
    for name in uris if to_head else ():
        check_known(chosen, chosen.databases[name])
    with (
        driver_errors("restore"),
        opened(uris, create=True) as engines,
        locked(engines, "restore", wait_seconds) as check,
    ):
        refuse_shared(uris, engines)
        before = Plan(chosen, tuple(targets_of(engines, chosen)))
        if shown and before.fingerprint != shown:
            raise UserError(
                "the set or the database is not what the plan showed; nothing was changed", "run it again"
            )
        before.refuse()
        sets.verify(chosen)
        loads = {
            name: Load(engine, chosen, chosen.databases[name], pg_command, to_head, check)
            for name, engine in engines.items()
        }
        artifacts = None
        if destination is not None and chosen.artifacts:
            from backups.destination import tell_outside
            from backups.object_restore import Restore

            objects = Restore(destination, chosen)
            _save(engines, before, save_to, destination if objects.replaces else None, pg_command)
            with objects.adding() as finish:

                def ready() -> None:
                    finish()
                    check()

                expected = _load({**loads, TRACKING: replace(loads[TRACKING], ready=ready)})
            if objects.source != chosen.artifacts["source"]:
                old = chosen.artifacts.get("roots", [chosen.artifacts["source"]])
                root = artifact_root or objects.source
                objects.moved = sum(move(engine, old, root) for engine in engines.values())
            artifacts = objects.replace_different()
            tell_outside(engines.values(), destination, "are named by the database and were not restored")
        else:
            _save(engines, before, save_to, None, pg_command)
            expected = _load(loads)
        keys = _restore_keys(chosen, keys_to) if keys_to else []
        rows = {name: sum(_recount(engines[name], counts).values()) for name, counts in expected.items()}
        schemas = {name: read_schema(engine, auth_alone=True) for name, engine in engines.items()}
        return Result(chosen, schemas, rows, artifacts, keys, round(time.monotonic() - begun, 1))


def _load(loads: Mapping[str, Load]) -> dict[str, dict[str, int]]:
    """Load one database after the other; returns the rows that each table must have, by name of the database."""
    expected: dict[str, dict[str, int]] = {}
    for name, load in loads.items():
        try:
            expected[name] = load.run()
        except UserError as error:
            if not expected:
                raise
            replaced = f"replaced already: {', '.join(expected)}; the {name} database is as it was"
            raise UserError(
                error.message, *error.hints, replaced, "run the restore again for the rest"
            ) from None
    return expected


def _save(
    engines: Mapping[str, Engine],
    before: Plan,
    to: Place | None,
    destination: str | None,
    pg_command: str | None,
) -> None:
    """Back up what will be replaced: databases that hold anything, the artifacts if one changes."""
    full = {target.name: engines[target.name] for target in before.targets if any(target.rows.values())}
    if to is not None and (full or destination):
        full.pop(TRACKING, None)
        saved = write_set(
            engines[TRACKING],
            to,
            "before-restore",
            further=full,
            destination=destination,
            pg_command=pg_command,
        )
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


def _restore_keys(backup: BackupSet, to: Path) -> list[str]:
    restored = []
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    for key in backup.manifest["keys"]:
        source, target = sets.inside(backup, f"keys/{key['name']}"), to / key["name"]
        if target.exists() and sha256(target) == key["sha256"]:
            continue
        if target.exists():
            target.rename(target.with_name(f"{target.name}.before-restore"))
        shutil.copyfile(source, target)
        target.chmod(0o600)
        restored.append(str(target))
    return restored
