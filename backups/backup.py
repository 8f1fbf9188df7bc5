"""Back up a database, its artifacts and its keys as one set."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backups import sets
from backups.in_folder import Folder
from console import UserError, note
from database import postgresql, sqlite
from database.connection import connect, driver_errors, sqlite_path
from database.inspection import source_of
from database.lock import maintenance_lock
from database.programs import find_programs
from database.revision import mlflow_version
from database.schema import read_schema
from files import require_room, sha256, sync
from version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from backups.contract import Place

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
    source: sqlite3.Connection | None = None,
) -> sets.BackupSet:
    """Write one set, with the maintenance lock held by the caller; see `back_up` for the arguments.

    For SQLite, `source` may be an open connection to copy from instead of a new one.
    """
    begun = time.monotonic()
    place = Folder(to) if isinstance(to, Path) else to
    with place.lock(purpose):
        earlier = [one for one in place.sets()[0] if one.database["source"] == source_of(engine)]
        with place.draft() as folder:
            database = _database_part(engine, folder, earlier[-1] if earlier else None, pg_command, source)
            artifacts = None
            if destination is not None:
                from backups.destination import tell_outside
                from backups.object_backup import save_artifacts

                outside = tell_outside(engine, destination, "are not in this backup")
                artifacts = {**save_artifacts(destination, folder, earlier, place), "outside": outside}
            manifest = {
                "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "purpose": purpose,
                "version": VERSION,
                "mlflow_version": mlflow_version(),
                "database": database,
                "artifacts": artifacts,
                "keys": [_key_part(path, folder) for path in keys],
                "seconds": round(time.monotonic() - begun, 1),
            }
            done = place.finish(folder, manifest)
        if keep is not None:
            place.prune(source_of(engine), keep)
    return done


def _database_part(
    engine: Engine,
    folder: Path,
    last: sets.BackupSet | None,
    pg_command: str | None,
    source: sqlite3.Connection | None,
) -> dict[str, Any]:
    part: dict[str, Any] = {"kind": engine.url.get_backend_name(), "source": source_of(engine)}
    path = sqlite_path(engine.url)
    if path is None:
        return {
            **part,
            "revision": read_schema(engine).revision,
            **_dump_part(engine, folder, last, pg_command),
        }
    target = folder / "database.sqlite"
    require_room(folder, path.stat().st_size, "a copy of the database")
    try:
        with closing(sqlite.open_database(path)) as own:
            sqlite.copy(source or own, target, "copying the database")
        with closing(sqlite.open_database(target)) as copied:
            rows = sqlite.count_rows(copied)
            revisions = (
                copied.execute("SELECT version_num FROM alembic_version").fetchall()
                if "alembic_version" in rows
                else []
            )
    except sqlite3.OperationalError as error:
        raise UserError(
            f"cannot copy {path}: {error}", f"is there room in {folder.parent}? df -h {folder.parent}"
        ) from None
    return {
        **part,
        "revision": revisions[0][0] if revisions else None,
        "file": target.name,
        "bytes": target.stat().st_size,
        "sha256": sha256(target),
        "rows": rows,
        "journal_mode": sqlite.journal_mode(path),
    }


def _dump_part(
    engine: Engine, folder: Path, last: sets.BackupSet | None, pg_command: str | None
) -> dict[str, Any]:
    target = folder / "database.dump"
    with engine.connect() as connection:
        version = postgresql.server_version(connection)
        identity, where = postgresql.identity(connection), postgresql.position(connection)
    if last and where and last.database.get("position") == where and sets.is_whole(last):
        note(f"the database has not changed since {last.path.name}: its dump is linked")
        target.hardlink_to(last.path / last.database["file"])
        names = ("schema", "file", "bytes", "sha256", "rows", "position", "server_version", "identity")
        return {name: last.database[name] for name in names}
    programs = find_programs(version, pg_command)
    dump = postgresql.dump(engine, programs, target)
    return {
        "schema": dump.schema,
        "file": target.name,
        "bytes": dump.bytes,
        "sha256": dump.sha256,
        "rows": dump.rows,
        "position": dump.position,
        "server_version": version,
        "identity": identity,
    }


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
