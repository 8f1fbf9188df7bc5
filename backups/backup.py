"""Back up a database, its artifacts and its keys as one set."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backups import sets
from backups.in_folder import Folder
from console import UserError, note
from database.connection import connect, driver_errors
from database.dialect import dialect_of, maintenance_lock
from database.inspection import source_of
from database.revision import mlflow_version
from files import sha256, sync
from version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from backups.contract import Place
    from database.dialect import Dialect

DEFAULT_KEEP = 7


def back_up(
    uri: str,
    to: Path | Place,
    *,
    destination: str | None = None,
    keys: Sequence[Path] = (),
    keep: int | None = DEFAULT_KEEP,
    wait_seconds: float = 0,
    pg_command: str | None = None,
    purpose: str = "backup",
) -> sets.BackupSet:
    """Write one set: the database first, then the artifacts, then the keys, then the manifest.

    Artifacts come after the database so that everything a row of the dump names is in the set; the
    maintenance lock keeps cleanup from deleting in between. Servers may go on writing.

    Args:
        uri: the backend store.
        to: the folder of all sets, or another place.
        destination: the artifact destination; None for a set without artifacts.
        keys: further files that the data depends on (gateway passphrase, auth database).
        keep: how many sets of this database to keep, None for all.
        wait_seconds: how long to wait for another process that holds the maintenance lock.
        pg_command: see `database.programs.find_programs`.
        purpose: one word for the manifest.

    Raises:
        UserError: anything a user can mend; then no set was added and none was removed.
    """
    engine = connect(uri)
    try:
        with driver_errors("backup"), maintenance_lock(engine, "backup", wait_seconds):
            return write_set(
                engine, to, purpose, destination=destination, keys=keys, keep=keep, pg_command=pg_command
            )
    finally:
        engine.dispose()


def write_set(
    engine: Engine,
    to: Path | Place,
    purpose: str,
    *,
    destination: str | None = None,
    keys: Sequence[Path] = (),
    keep: int | None = None,
    pg_command: str | None = None,
    database: Dialect | None = None,
) -> sets.BackupSet:
    """Write one set, with the maintenance lock held by the caller; see `back_up` for the arguments.

    `database` is the engine's, opened in another way than usual.
    """
    begun = time.monotonic()
    place = Folder(to) if isinstance(to, Path) else to
    with place.lock(purpose):
        source = source_of(engine)
        earlier = [one for one in place.sets()[0] if one.database["source"] == source]
        with place.draft() as folder:
            last = earlier[-1] if earlier else None
            part = _database_part(database or dialect_of(engine), source, folder, last, pg_command)
            artifacts = None
            if destination is not None:
                from backups.destination import tell_outside
                from backups.object_backup import save_artifacts

                outside = tell_outside(engine, destination, "are not in this backup")
                artifacts = {**save_artifacts(destination, folder, earlier, place), "outside": outside}
            manifest = {
                "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "purpose": purpose,
                "stack": os.environ.get(sets.STACK),
                "version": VERSION,
                "mlflow_version": mlflow_version(),
                "database": part,
                "artifacts": artifacts,
                "keys": [_key_part(path, folder) for path in keys],
                "seconds": round(time.monotonic() - begun, 1),
            }
            done = place.finish(folder, manifest)
        if keep is not None and earlier and not part["revision"]:
            note("nothing is pruned: the database holds no tables of MLflow, and earlier sets may")
        elif keep is not None:
            place.prune(source, keep)
    return done


def _database_part(
    database: Dialect, source: str, folder: Path, last: sets.BackupSet | None, pg_command: str | None
) -> dict[str, Any]:
    whole = last is not None and sets.is_whole(last)
    earlier = last.database if last and whole else None
    file = last.path / last.database["file"] if last and whole else None
    return {"kind": database.kind, "source": source, **database.dump(folder, earlier, file, pg_command)}


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
    return {
        "name": path.name,
        "path": str(path.absolute()),
        "bytes": target.stat().st_size,
        "sha256": sha256(target),
    }
