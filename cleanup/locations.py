"""From the artifact URIs in the database to folders below the artifact destination, safe to delete."""

from __future__ import annotations

import re
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sqlalchemy import select

from artifacts.base import is_safe_key, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from cleanup.schema import Schema

# What the tracking server puts before the path of a proxied artifact
# (mlflow.store.artifact.mlflow_artifacts_repo.MlflowArtifactsRepository.resolve_uri).
PROXY_ROOT = "/api/2.0/mlflow-artifacts/artifacts"
RUN_ID = r"[0-9a-f]{32}"
MODEL_ID = r"m-[0-9a-f]{32}"
TRACE_ID = r"tr-[0-9a-f]{32}"
ENTITY = re.compile(rf"(?:{RUN_ID}|{MODEL_ID}|{TRACE_ID})")


class StrangeLocation(Exception):  # noqa: N818 (no error: something to report)
    """An artifact URI that nothing may be deleted from. The message says why, and shows no password."""

    def __init__(self, message: str) -> None:
        super().__init__(without_password(message))


class Destination:
    """The artifact destination, as far as URIs are concerned."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._local = parts.scheme in {"", "file"}
        self._scheme = re.sub(r"^s3[an]$", "s3", parts.scheme)
        self._host = parts.netloc
        if self._local:
            path = unquote(parts.path) if parts.scheme else uri
            self._roots = {str(Path(path).resolve()), str(Path(path).absolute())}
        else:
            self._roots = {"/" + parts.path.strip("/")}

    def key(self, uri: str | None) -> str:
        """Return the key below the destination that an artifact URI names.

        Proxied URIs (``mlflow-artifacts:`` and the server's own http ones) are relative to the destination.

        Raises:
            StrangeLocation: it is empty, lies elsewhere, or is not a plain path below the destination.
        """
        if not uri:
            raise StrangeLocation("it has no artifact location")
        parts = urlsplit(uri)
        if parts.query or parts.fragment:
            raise StrangeLocation(f"'{uri}' is no plain path")
        path = parts.path
        if parts.scheme in {"mlflow-artifacts", "http", "https"}:
            at = path.find(PROXY_ROOT)
            if at >= 0:
                path = path[at + len(PROXY_ROOT) :]
            elif parts.scheme != "mlflow-artifacts":
                raise StrangeLocation(f"'{uri}' is not in the artifact destination")
            if "%" in path:
                raise StrangeLocation(f"'{uri}' is no plain path")
            return self._checked(path.lstrip("/"), uri)
        if self._local:
            if parts.scheme not in {"", "file"} or parts.netloc not in {"", "localhost"}:
                raise StrangeLocation(f"'{uri}' is not in the artifact destination")
            path = unquote(path) if parts.scheme else uri
        elif (re.sub(r"^s3[an]$", "s3", parts.scheme), parts.netloc) != (self._scheme, self._host):
            raise StrangeLocation(f"'{uri}' is not in the artifact destination")
        for root in self._roots:
            below = path.removeprefix(root.rstrip("/") + "/")
            if below != path:
                return self._checked(below, uri)
        raise StrangeLocation(f"'{uri}' is not in the artifact destination")

    @staticmethod
    def _checked(key: str, uri: str) -> str:
        key = key.rstrip("/")
        if not is_safe_key(key):
            raise StrangeLocation(f"'{uri}' leads out of its folder")
        return key

    def folder(self, entity: str, uri: str | None) -> str:
        """Return the folder that belongs to one run, logged model or trace and to nothing else.

        Args:
            entity: its id, which MLflow puts before the last part of its location:
                ``.../<id>/artifacts``.
            uri: its artifact location.

        Raises:
            StrangeLocation: the location is not laid out like that, so others may share it.
        """
        key = self.key(uri)
        *before, own, last = ("", "", *key.split("/"))
        if own != entity or last != "artifacts" or any(ENTITY.fullmatch(part) for part in before):
            raise StrangeLocation(f"'{uri}' is not a folder of its own in MLflow's layout")
        return key.removesuffix("/artifacts") + "/"


class Protected:
    """What must stay although its owner was deleted: files and ids that others refer to."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._keys: list[tuple[str, str]] = []

    def reason(self, entity: str, *folders: str) -> str | None:
        """Return why an id, or the folders it owns, must stay, or None."""
        if entity in self._ids:
            return self._ids[entity]
        return next((why for folder in folders if (why := self.inside(folder))), None)

    def inside(self, folder: str) -> str | None:
        """Return why something inside the folder must stay, or None."""
        at = bisect_left(self._keys, (folder, ""))
        if at < len(self._keys) and self._keys[at][0].startswith(folder):
            return self._keys[at][1]
        return None

    @classmethod
    def read(
        cls, connection: Connection, schema: Schema, destination: Destination, *, force_registered: bool
    ) -> Protected:
        """Read it from the database.

        Registered model versions name what they need in three ways: `run_id`, an id or a path in `source`,
        and a path in `storage_location` (mlflow.store.model_registry.sqlalchemy_store.create_model_version).

        Args:
            connection: to the database.
            schema: its schema.
            destination: the artifact destination.
            force_registered: registered model versions protect nothing.
        """
        found = cls()
        if not force_registered and "model_versions" in schema.tables:
            for why, run, locations in _model_versions(connection, schema):
                if run:
                    found._ids[run] = why
                for location in locations:
                    found._ids.update(dict.fromkeys(ENTITY.findall(location), why))
                    found._add(destination, location, why)
        for table, key, column in (
            ("runs", "run_uuid", "artifact_uri"),
            ("logged_models", "model_id", "artifact_location"),
        ):
            if not schema.has(table, key, column):
                continue
            owner = schema.tables[table]
            # in nobody's own folder: whoever owns the folder must not take these files along
            strange = select(owner.c[key], owner.c[column]).where(
                owner.c[column].not_like("%" + owner.c[key] + "/artifacts")
            )
            for entity, location in connection.execute(strange):
                found._add(destination, location, f"the artifacts of {entity} lie inside")
        found._keys.sort()
        return found

    def _add(self, destination: Destination, location: str, why: str) -> None:
        with suppress(StrangeLocation):  # lies elsewhere: nothing of it is in danger
            self._keys.append((destination.key(location) + "/", why))


def _model_versions(connection: Connection, schema: Schema) -> Iterator[tuple[str, str | None, list[str]]]:
    versions = schema.tables["model_versions"]
    columns = [versions.c[name] for name in ("run_id", "source", "storage_location") if name in versions.c]
    query = select(versions.c.name, versions.c.version, *columns).where(
        versions.c.current_stage.is_distinct_from("Deleted_Internal")
    )
    for name, version, run, *locations in connection.execute(query.execution_options(yield_per=1000)):
        yield f"registered model version {name}/{version} needs it", run, [item for item in locations if item]
