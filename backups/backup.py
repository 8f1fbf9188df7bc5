"""Back up a database, its artifacts and its keys as one set."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from backups import sets
from backups.databases import TRACKING, locked, opened, refuse_strangers
from backups.in_folder import Folder
from console import UserError, note
from database.connection import driver_errors
from database.dialect import dialect_of
from database.inspection import source_of
from database.revision import mlflow_version
from files import sha256, sync
from version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Engine

    from backups.contract import Place
    from database.dialect import Dialect

DEFAULT_KEEP = 7
NONE: Mapping[str, Any] = MappingProxyType({})


def back_up(
    uri: str,
    to: Path | Place,
    *,
    further: Mapping[str, str] = NONE,
    destination: str | None = None,
    keys: Sequence[Path] = (),
    keep: int | None = DEFAULT_KEEP,
    wait_seconds: float = 0,
    pg_command: str | None = None,
    purpose: str = "backup",
) -> sets.BackupSet:
    """Write one set: the databases first, then the artifacts, then the keys, then the manifest.

    Artifacts come after the databases so that everything a row of a dump names is in the set; the
    maintenance locks keep cleanup from deleting in between. Servers may go on writing.

    Args:
        uri: the backend store.
        to: the folder of all sets, or another place.
        further: the server's other databases by name; see `backups.databases`.
        destination: the artifact destination; None for a set without artifacts.
        keys: further files that the data depends on, such as the gateway's passphrase.
        keep: how many sets of this database to keep, None for all.
        wait_seconds: how long to wait for another process that holds a maintenance lock.
        pg_command: see `database.programs.find_programs`.
        purpose: one word for the manifest.

    Raises:
        UserError: anything a user can mend; then no set was added and none was removed.
    """
    with (
        driver_errors("backup"),
        opened({TRACKING: uri, **further}) as engines,
        locked(engines, "backup", wait_seconds),
    ):
        refuse_strangers(engines)
        return write_set(
            engines.pop(TRACKING),
            to,
            purpose,
            further=engines,
            destination=destination,
            keys=keys,
            keep=keep,
            pg_command=pg_command,
        )


def write_set(
    engine: Engine,
    to: Path | Place,
    purpose: str,
    *,
    further: Mapping[str, Engine] = NONE,
    destination: str | None = None,
    keys: Sequence[Path] = (),
    keep: int | None = None,
    pg_command: str | None = None,
    database: Dialect | None = None,
) -> sets.BackupSet:
    """Write one set, with the maintenance locks held by the caller; see `back_up` for the arguments.

    `database` is the engine's, opened in another way than usual.
    """
    begun = time.monotonic()
    place = Folder(to) if isinstance(to, Path) else to
    with place.lock(purpose):
        source = source_of(engine)
        earlier = [backup for backup in place.sets()[0] if backup.database["source"] == source]
        with place.draft() as folder:
            last = earlier[-1] if earlier else None
            dialects = {TRACKING: database or dialect_of(engine)}
            dialects |= {name: dialect_of(other) for name, other in further.items()}
            parts = {
                name: _database_part(name, dialect, folder, last, pg_command)
                for name, dialect in dialects.items()
            }
            artifacts = None
            if destination is not None:
                from backups.destination import tell_outside
                from backups.object_backup import save_artifacts

                outside = tell_outside([engine, *further.values()], destination, "are not in this backup")
                artifacts = {**save_artifacts(destination, folder, earlier, place), "outside": outside}
            manifest = {
                "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "purpose": purpose,
                "stack": os.environ.get(sets.STACK),
                "version": VERSION,
                "mlflow_version": mlflow_version(),
                "database": parts.pop(TRACKING),
                **({"databases": parts} if parts else {}),
                "artifacts": artifacts,
                "keys": [_key_part(path, folder) for path in keys],
                "seconds": round(time.monotonic() - begun, 1),
            }
            written = place.finish(folder, manifest)
        if keep is not None and earlier and not written.database["revision"]:
            note("nothing is pruned: the database holds no tables of MLflow, and earlier sets may")
        elif keep is not None:
            place.prune(source, keep)
    return written


def _database_part(
    name: str, database: Dialect, folder: Path, last: sets.BackupSet | None, pg_command: str | None
) -> dict[str, Any]:
    source = source_of(database.engine)
    earlier = last.databases.get(name) if last and sets.is_whole(last) else None
    if earlier and earlier["source"] != source:
        earlier = None
    file = last.path / earlier["file"] if last and earlier else None
    stem = folder / ("database" if name == TRACKING else name)
    dumped = database.dump(stem, earlier, file, pg_command)
    return {"kind": database.kind, "source": source, **dumped}


def _key_part(path: Path, folder: Path) -> dict[str, Any]:
    target = folder / "keys" / path.name
    target.parent.mkdir(mode=0o700, exist_ok=True)
    if target.exists():
        raise UserError(f"two files to back up are named {path.name}", "rename one of them")
    try:
        shutil.copyfile(path, target)
    except FileNotFoundError:
        raise UserError(f"no file {path} to back up", "check --include") from None
    target.chmod(0o600)
    sync(target)
    sync(target.parent)
    return {
        "name": path.name,
        "path": str(path.absolute()),
        "bytes": target.stat().st_size,
        "sha256": sha256(target),
    }
