"""Backup sets: one folder each, complete only with its manifest, which is written last.

20261123T193210Z/
  database.dump or database.sqlite
  artifacts/...          the artifact destination's objects under their own keys
  artifacts.jsonl        one line an object: key, bytes, sha256
  keys/...               files that the data depends on
  manifest.json
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from console import UserError, note
from database.files import disk_errors, sha256, sync, write_atomically
from database.progress import progress, size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
MANIFEST = "manifest.json"
PARTIAL = ".partial"


@dataclass(frozen=True)
class BackupSet:
    """A complete set and what its manifest says."""

    path: Path
    manifest: dict[str, Any]

    @property
    def database(self) -> dict[str, Any]:
        """Return the part about the database: kind, file, bytes, sha256, revision, rows, ..."""
        part: dict[str, Any] = self.manifest["database"]
        return part

    @property
    def artifacts(self) -> dict[str, Any] | None:
        """Return the part about the artifacts, None when the set has none."""
        part: dict[str, Any] | None = self.manifest["artifacts"]
        return part

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``--json`` shows: a summary of the manifest."""
        artifacts = self.artifacts
        return {
            "path": str(self.path),
            "created": self.manifest["created"],
            "purpose": self.manifest["purpose"],
            "mlflow_version": self.manifest["mlflow_version"],
            "database": {
                "kind": self.database["kind"],
                "source": self.database["source"],
                "revision": self.database["revision"],
                "rows": sum(self.database["rows"].values()),
                "bytes": self.database["bytes"],
            },
            "artifacts": artifacts and {name: artifacts[name] for name in ("source", "objects", "bytes")},
            "keys": [key["name"] for key in self.manifest["keys"]],
            "seconds": self.manifest["seconds"],
        }

    def line(self) -> str:
        """Return one line for a person."""
        database, artifacts = self.database, self.artifacts
        objects = f", {artifacts['objects']} objects of {size(artifacts['bytes'])}" if artifacts else ""
        rows = sum(database["rows"].values())
        return (
            f"{self.path.name}  {self.manifest['purpose']}: MLflow {self.manifest['mlflow_version']},"
            f" {database['kind']}, {rows} rows of {size(database['bytes'])}{objects}"
        )


def _checksum(manifest: dict[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


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
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise UserError(f"{path / MANIFEST} is not a manifest of mlflow-stacks", known)
    if manifest["format"] > FORMAT:
        raise UserError(
            f"the backup {path} has format {manifest['format']}; this mlflow-stacks reads up to {FORMAT}",
            "update this checkout: git pull",
        )
    if manifest.get("checksum") != _checksum(manifest):
        raise UserError(
            f"the manifest of {path} is damaged: its checksum does not fit", "use another backup", known
        )
    return BackupSet(path, manifest)


def list_sets(folder: Path) -> tuple[list[BackupSet], list[str]]:
    """Return the complete sets of a folder, oldest first, and a line for each folder that is none."""
    sets, rest = [], []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir():
            try:
                sets.append(open_set(path))
            except UserError as error:
                rest.append(error.message)
    return sorted(sets, key=lambda one: (one.manifest["created"], one.path.name)), rest


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
    manifest = {"format": FORMAT, **manifest}
    manifest["checksum"] = _checksum(manifest)
    write_atomically(partial / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    path = partial.with_name(partial.name.removesuffix(PARTIAL))
    partial.rename(path)
    sync(path.parent)
    return BackupSet(path, manifest)


class Entry(NamedTuple):
    """One line of the list of artifacts; `modified` as `artifacts.StoredObject` has it."""

    key: str
    size: int
    sha256: str
    modified: float | None


def entries(one: BackupSet) -> Iterator[Entry]:
    """Yield the artifacts of a set."""
    if one.artifacts:
        with (one.path / one.artifacts["list"]).open(encoding="utf-8") as lines:
            for line in lines:
                yield Entry(*json.loads(line))


def verify(one: BackupSet) -> None:
    """Read every part of a set and compare its size and SHA-256 with the manifest.

    Raises:
        UserError: a part is missing, truncated or changed; says which.
    """
    parts = [(one.database["file"], one.database["bytes"], one.database["sha256"])]
    parts += [(f"keys/{key['name']}", key["bytes"], key["sha256"]) for key in one.manifest["keys"]]
    total = sum(number for _, number, _ in parts)
    if one.artifacts:
        parts.append((one.artifacts["list"], one.artifacts["list_bytes"], one.artifacts["sha256"]))
        total += one.artifacts["list_bytes"] + one.artifacts["bytes"]
    with progress("verifying the backup", total) as step:
        for name, number, digest in parts:
            _verify_part(one.path, name, number, digest)
            step.add(number)
        for entry in entries(one):
            _verify_part(one.path, f"artifacts/{entry.key}", entry.size, entry.sha256)
            step.add(entry.size)


def _verify_part(folder: Path, name: str, number: int, digest: str) -> None:
    advice = ("nothing was changed; use another backup: invoke backups",)
    path = folder / name
    if not path.is_file():
        raise UserError(f"the backup {folder} is damaged: {name} is missing", *advice)
    if path.stat().st_size != number:
        found = path.stat().st_size
        raise UserError(f"the backup {folder} is damaged: {name} has {found} of {number} bytes", *advice)
    if sha256(path) != digest:
        raise UserError(f"the backup {folder} is damaged: the SHA-256 of {name} does not fit", *advice)


def is_whole(one: BackupSet) -> bool:
    """Whether the database part is there with its size: a quick look, not `verify`."""
    path = one.path / str(one.database["file"])
    return path.is_file() and path.stat().st_size == one.database["bytes"]


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
    good = [one.path for one in sets if one.database["source"] == source and is_whole(one)]
    old = good[: -max(1, keep)]
    old += [path for path in folder.glob(f"*{PARTIAL}") if path.is_dir()]
    for path in old:
        # the manifest first: a set half removed must not look like one
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        note(f"pruned {path}")
    return old
