"""Backup sets: one folder each, complete only with its manifest, which is written last.

What is in one, byte for byte, stands in FORMAT.md beside this file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from artifacts.base import is_path
from backups.manifest import MANIFEST, check, signed
from backups.parallel import in_parallel
from console import UserError, note, progress, size
from files import disk_errors, sha256, sync, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


ARTIFACTS = "artifacts"
RENAMED = "renamed"  # artifacts whose name can be no path
PARTIAL = ".partial"
STACK = "_MLFLOW_STACKS_STACK"  # variable: the stack that a command works for
LATEST = "latest"
_UNTOUCHED = ("nothing was changed; use another backup: invoke backups",)


@dataclass(frozen=True)
class BackupSet:
    """A complete set and what its manifest says.

    Attributes:
        path: its folder; that of its small parts, fetched for a while, where the set is in a bucket.
        manifest: what its manifest says.
        address: ``s3://BUCKET/PREFIX/NAME`` of a set in a bucket.
        fetch: copies an artifact of a set in a bucket into a file; says whether it is there.
    """

    path: Path
    manifest: dict[str, Any]
    address: str = ""
    fetch: Callable[[Entry, Path], bool] | None = None

    @property
    def where(self) -> str:
        """Return what to type after ``--backup=``."""
        return self.address or str(self.path)

    @property
    def database(self) -> dict[str, Any]:
        """Return the part about the database: kind, file, bytes, sha256, revision, rows, ..."""
        part: dict[str, Any] = self.manifest["database"]
        return part

    @property
    def databases(self) -> dict[str, dict[str, Any]]:
        """Return the part about each database by its name: ``tracking`` is what `database` has."""
        return {"tracking": self.database, **self.manifest.get("databases", {})}

    @property
    def artifacts(self) -> dict[str, Any] | None:
        """Return the part about the artifacts, None when the set has none."""
        part: dict[str, Any] | None = self.manifest["artifacts"]
        return part

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``--json`` shows: a summary of the manifest."""
        artifacts = self.artifacts
        return {
            "path": self.where,
            "created": self.manifest["created"],
            "purpose": self.manifest["purpose"],
            "stack": self.manifest.get("stack"),
            "mlflow_version": self.manifest["mlflow_version"],
            "database": _summary(self.database),
            "databases": {name: _summary(part) for name, part in self.manifest.get("databases", {}).items()},
            "artifacts": artifacts
            and {
                **{name: artifacts[name] for name in ("source", "objects", "bytes")},
                "left_out": artifacts.get("left_out", []),
                "outside": artifacts.get("outside", {}),
            },
            "keys": [key["name"] for key in self.manifest["keys"]],
            "seconds": self.manifest["seconds"],
        }

    @contextmanager
    def artifact(self, entry: Entry) -> Iterator[Path]:
        """Give the file that holds an artifact; it may not exist."""
        if self.fetch is None:
            yield inside(self, entry.place)
            return
        with tempfile.TemporaryDirectory(prefix="mlflow-stacks-") as name:
            self.fetch(entry, Path(name) / "object")
            yield Path(name) / "object"

    def line(self) -> str:
        """Return one line for a person."""
        database, artifacts = self.database, self.artifacts
        objects = f", {artifacts['objects']} objects of {size(artifacts['bytes'])}" if artifacts else ""
        if artifacts and (left_out := artifacts.get("left_out")):
            objects += f", {len(left_out)} left out"
        rows = sum(database["rows"].values())
        also = "".join(
            f", {name} of {sum(part['rows'].values())} rows"
            for name, part in self.manifest.get("databases", {}).items()
        )
        return (
            f"{self.path.name}  {self.manifest['purpose']}: MLflow {self.manifest['mlflow_version']},"
            f" {database['kind']}, {rows} rows of {size(database['bytes'])}{also}{objects}"
        )


def _summary(part: dict[str, Any]) -> dict[str, Any]:
    shown = {name: part.get(name) for name in ("kind", "source", "revision", "bytes")}
    return {**shown, "rows": sum(part["rows"].values())}


def open_set(path: Path) -> BackupSet:
    """Read a set's manifest.

    Raises:
        UserError: no such folder, no set, an unfinished one, a newer format, or a damaged manifest.
    """
    known = "to see the sets there are: invoke backups"
    if not path.is_dir():
        raise UserError(f"no backup at {path}", known)
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError:
        what = "an unfinished backup" if path.name.endswith(PARTIAL) else "not a backup"
        raise UserError(f"{path} is {what}: it has no {MANIFEST}", known) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the manifest of {path}: {error}", "use another backup", known) from None
    return checked(path, str(path), manifest)


def checked(path: Path, where: str, manifest: Any) -> BackupSet:
    """Return the set of a manifest that was read at `where`; see `backups.manifest.check`."""
    return BackupSet(path, check(manifest, where), where if where != str(path) else "")


def inside(backup: BackupSet, name: str) -> Path:
    """Return the file of a set that has a name: one below its folder, with no symbolic link on the way to it.

    Raises:
        UserError: the name leads out of the set, or to something that is no file.
    """
    path = backup.path / name
    straight = Path(os.path.realpath(backup.path), name).parent
    if not is_path(name) or os.path.realpath(straight) != str(straight):
        raise UserError(f"the backup {backup.where} names {name!r}, which leads out of it", *_UNTOUCHED)
    try:
        regular = stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        regular = True  # missing: whoever reads it says so
    if not regular:
        raise UserError(f"the backup {backup.where} is damaged: {name} is no file", *_UNTOUCHED)
    return path


def list_sets(folder: Path) -> tuple[list[BackupSet], list[str]]:
    """Return the complete sets of a folder, oldest first, and a line for each folder that is none.

    Raises:
        UserError: something else than a folder is there.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the place of backups {folder} is no folder", "give another: --to=FOLDER")
    sets, rest = [], []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and path.name != "__pycache__":  # the default folder is this package's own, too
            try:
                sets.append(open_set(path))
            except UserError as error:
                rest.append(error.message)
    return sorted(sets, key=lambda backup: (backup.manifest["created"], backup.path.name)), rest


def newest(folder: Path) -> Path:
    """Return the newest complete set of a folder.

    Raises:
        UserError: there is none.
    """
    listed, rest = list_sets(folder)
    if not listed:
        raise UserError(f"there is no backup in {folder}", *rest, "take one: invoke backup")
    return listed[-1].path


@contextmanager
def draft(folder: Path) -> Iterator[Path]:
    """Give a folder for the parts of a new set; it is removed if the block fails.

    Raises:
        UserError: no space left, or the place cannot be written.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name, number = stamp, 1
        while (folder / name).exists() or (folder / f"{name}{PARTIAL}").exists():
            number += 1
            name = f"{stamp}-{number}"
        partial = folder / f"{name}{PARTIAL}"
        partial.mkdir(mode=0o700)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def finish(partial: Path, manifest: dict[str, Any]) -> BackupSet:
    """Write the manifest and give the set its final name."""
    manifest = signed(manifest)
    write_atomically(partial / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    path = partial.with_name(partial.name.removesuffix(PARTIAL))
    partial.rename(path)
    sync(path.parent)
    return BackupSet(path, manifest)


class Entry(NamedTuple):
    """One line of the list of artifacts; `modified` as `artifacts.StoredObject` has it.

    `stored` is where the set has the object if not under its own key: ``renamed/`` and the SHA-256 of its key.
    """

    key: str
    size: int
    sha256: str
    modified: float | None
    stored: str = ""

    @property
    def place(self) -> str:
        """Return where the object lies in a set's folder."""
        return self.stored or f"{ARTIFACTS}/{self.key}"

    def line(self) -> str:
        """Return the line of this entry; bytes of a key that are not UTF-8 are escaped, as JSON can."""
        values = self if self.stored else self[:-1]
        readable = not any("\ud800" <= letter <= "\udfff" for letter in self.key)
        return json.dumps(values, ensure_ascii=not readable) + "\n"


def entries(backup: BackupSet) -> Iterator[Entry]:
    """Yield the artifacts of a set."""
    if backup.artifacts:
        with (backup.path / backup.artifacts["list"]).open(encoding="utf-8") as lines:
            for line in lines:
                yield _entry(backup, line)


def _entry(backup: BackupSet, line: str) -> Entry:
    try:
        entry = Entry(*json.loads(line))
        sound = isinstance(entry.key, str) and isinstance(entry.size, int) and isinstance(entry.sha256, str)
    except (ValueError, TypeError):
        sound = False
    if not sound or not re.fullmatch(rf"(|{RENAMED}/[0-9a-f]{{64}})", entry.stored):
        raise UserError(
            f"the backup {backup.where} is damaged: its list of artifacts is not sound", *_UNTOUCHED
        )
    return entry


def verify(backup: BackupSet) -> None:
    """Read every part of a set and compare its size and SHA-256 with the manifest.

    Raises:
        UserError: a part is missing, truncated or changed; says which.
    """
    parts = [(part["file"], part["bytes"], part["sha256"]) for part in backup.databases.values()]
    parts += [(f"keys/{key['name']}", key["bytes"], key["sha256"]) for key in backup.manifest["keys"]]
    total = sum(number for _, number, _ in parts)
    if backup.artifacts:
        parts.append((backup.artifacts["list"], backup.artifacts["list_bytes"], backup.artifacts["sha256"]))
        total += backup.artifacts["list_bytes"] + backup.artifacts["bytes"]
    with progress("verifying the backup", total) as step:
        for name, number, digest in parts:
            _verify_part(backup, name, inside(backup, name), number, digest)
            step.add(number)

        def verify_artifact(entry: Entry) -> int:
            with backup.artifact(entry) as path:
                _verify_part(backup, f"{ARTIFACTS}/{entry.key}", path, entry.size, entry.sha256)
            return entry.size

        for number in in_parallel(8 if backup.fetch else 2, verify_artifact, entries(backup)):
            step.add(number)


def _verify_part(backup: BackupSet, name: str, path: Path, number: int, digest: str) -> None:
    folder = backup.where
    if not path.is_file():
        raise UserError(f"the backup {folder} is damaged: {name} is missing", *_UNTOUCHED)
    if path.stat().st_size != number:
        size = path.stat().st_size
        raise UserError(f"the backup {folder} is damaged: {name} has {size} of {number} bytes", *_UNTOUCHED)
    if sha256(path) != digest:
        raise UserError(f"the backup {folder} is damaged: the SHA-256 of {name} does not fit", *_UNTOUCHED)


def is_whole(backup: BackupSet) -> bool:
    """Whether the databases are there with their sizes: a quick look, not `verify`."""
    files = [(backup.path / part["file"], part["bytes"]) for part in backup.databases.values()]
    return all(path.is_file() and path.stat().st_size == expected for path, expected in files)


def prune(folder: Path, source: str, keep: int) -> list[Path]:
    """Remove the oldest sets of one database, and what killed backups left.

    Only whole sets count as kept, so the last good one always stays. Call it with the folder's lock held.

    Args:
        folder: where the sets are.
        source: the database's URI as in the manifests.
        keep: how many to keep, at least 1.

    Returns:
        The folders that were removed.
    """
    sets, _ = list_sets(folder)
    good = [backup.path for backup in sets if backup.database["source"] == source and is_whole(backup)]
    old = good[: -max(1, keep)]
    old += [path for path in folder.glob(f"*{PARTIAL}") if path.is_dir()]
    for path in old:
        # the manifest first: a set half removed must not look like one
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        note(f"pruned {path}")
    return old
