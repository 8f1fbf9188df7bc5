"""From the artifact URIs in the database to folders below the artifact destination, safe to delete."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from artifacts.base import is_safe_key, without_password

if TYPE_CHECKING:
    from collections.abc import Iterable

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

    def places(self, uri: str, workspaces: Iterable[str] = ()) -> set[str]:
        """Return every key below the destination that an artifact URI may name, however oddly it is written.

        For what must stay, as `key` is for what may go: doubled slashes, ``..``, quoted characters, links, relative
        paths and what lies above the destination (the empty key: all of it) are read in every way that some client
        may read them. Empty where the URI can only name something elsewhere.

        Args:
            uri: an artifact location.
            workspaces: those of the server, which puts ``workspaces/NAME/`` before a proxied path that lacks it
                (mlflow.server.handlers, _get_workspace_scoped_repo_path_if_enabled).
        """
        try:
            parts = urlsplit(uri)
        except ValueError:  # "//[": a path, if anything
            parts = SplitResult("", "", uri, "", "")
        paths = {parts.path, unquote(parts.path)}
        if parts.scheme in {"mlflow-artifacts", "http", "https"}:
            return self._proxied(parts.scheme, paths, workspaces)
        if not self._local:
            same = (re.sub(r"^s3[an]$", "s3", parts.scheme), parts.netloc) == (self._scheme, self._host)
            return self._below(paths, self._roots) if same else set()
        if parts.scheme not in {"", "file"}:
            return set()
        paths |= set() if parts.scheme else {uri}
        names = {posixpath.basename(root) for root in self._roots}
        # MLflow up to 2 wrote ./mlruns/0, for a server that ran beside that folder
        relative = {posixpath.normpath(path).partition("/") for path in paths if not path.startswith("/")}
        absolute = {os.path.abspath(path) for path in paths}  # noqa: PTH100 (a path that is resolved is another)
        absolute |= {os.path.realpath(path) for path in absolute}
        return {rest for first, _, rest in relative if first in names} | self._below(absolute, self._roots)

    def _proxied(self, scheme: str, paths: set[str], workspaces: Iterable[str]) -> set[str]:
        if not all(PROXY_ROOT in path for path in paths):
            if scheme != "mlflow-artifacts":
                return set()
        else:
            paths = {path.partition(PROXY_ROOT)[2] for path in paths}
        others = [name for name in workspaces if name and name != "default"]
        paths |= {f"/workspaces/{name}/{path.lstrip('/')}" for name in others for path in paths}
        inner = self._below(paths, {"/"})
        if self._local:  # there may be a link on the way
            real = {os.path.realpath(f"{root}/{path}") for root in self._roots for path in paths}
            inner |= self._below(real, self._roots)
        return inner

    @staticmethod
    def _below(paths: set[str], roots: set[str]) -> set[str]:
        below = set()
        for path in paths:
            for form in (f"/{path.strip('/')}", posixpath.normpath(f"/{path.lstrip('/')}")):
                for root in roots:
                    top = root.rstrip("/") + "/"
                    if f"{form}/".startswith(top):
                        below.add(f"{form}/"[len(top) :].rstrip("/"))
                    elif top.startswith(form.rstrip("/") + "/"):
                        below.add("")
        return below

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
