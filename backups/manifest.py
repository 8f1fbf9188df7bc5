"""The manifest of a backup set: signed when it is written, and held against its shape when it is read."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from artifacts.base import is_path
from console import UserError

FORMAT = 3  # the newest that is read; what is written, `signed` says
MANIFEST = "manifest.json"

_SHAPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "": {"created": str, "purpose": str, "mlflow_version": str, "keys": list, "seconds": (int, float)},
    "database": {"kind": str, "source": str, "file": str, "bytes": int, "sha256": str, "rows": dict},
    "artifacts": {"source": str, "list": str, "list_bytes": int, "sha256": str, "objects": int, "bytes": int},
    "keys": {"name": str, "bytes": int, "sha256": str},
}


def _checksum(manifest: dict[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def signed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with its format, the oldest that tells all of it, and its checksum."""
    renamed = (manifest["artifacts"] or {}).get("renamed")
    manifest = {"format": 3 if manifest.get("databases") else 2 if renamed else 1, **manifest}
    return {**manifest, "checksum": _checksum(manifest)}


def check(manifest: Any, where: str) -> dict[str, Any]:
    """Return a manifest that was read at `where`.

    Raises:
        UserError: no manifest of ours, one of a newer format, or a damaged one.
    """
    known = "to see the sets there are: invoke backups"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise UserError(f"{where}/{MANIFEST} is not a manifest of mlflow-stacks", known)
    if manifest["format"] > FORMAT:
        raise UserError(
            f"the backup {where} has format {manifest['format']}; this mlflow-stacks reads up to {FORMAT}",
            "update this checkout: git pull",
        )
    if manifest.get("checksum") != _checksum(manifest):
        raise UserError(
            f"the manifest of {where} is damaged: its checksum does not fit", "use another backup", known
        )
    if reason := _misshapen(manifest):
        raise UserError(f"the manifest of {where} is not sound: {reason}", "use another backup", known)
    return manifest


def _misshapen(manifest: dict[str, Any]) -> str:
    """Say what a manifest lacks, or which of its names would lead out of the set; empty if nothing."""
    keys, further = manifest.get("keys"), manifest.get("databases", {})
    if not isinstance(further, dict):
        return "'databases' is no object"
    databases = [manifest.get("database"), *further.values()]
    parts = [("", manifest), *(("database", part) for part in databases)]
    if manifest.get("artifacts") is not None:
        parts.append(("artifacts", manifest["artifacts"]))
    parts += [("keys", key) for key in keys] if isinstance(keys, list) else []
    for name, part in parts:
        if not isinstance(part, dict):
            return f"'{name}' is no object"
        for field, kind in _SHAPES[name].items():
            if not isinstance(part.get(field), kind):
                return f"'{field}' of {name or 'the whole'} is {part.get(field)!r}"
        for field in ("file", "list", "name"):
            if field in part and (not is_path(part[field]) or "/" in part[field]):
                return f"{part[field]!r} is no name of a file of the set"
        if name == "database" and not isinstance(part.get("revision"), str | None):
            return f"its revision is {part['revision']!r}"
    return ""
