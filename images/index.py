"""The Python package index this machine is configured for, as the build stage of an image is told of it.

pip's and uv's own settings are read (their environment variables, then their files); nothing of them is kept
in this repository or in a finished image. What lies on this machine's disk only (``file://``, find-links) is
left out: a container cannot see it, and the lock's hashes hold whichever index answers.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Index:
    """Where packages come from.

    Attributes:
        url: the main index, or empty for the installers' own default.
        extra: further indexes.
        trusted: hosts whose certificate is not checked.
        certificates: the machine's bundle of certificate authorities, if it has one.
    """

    url: str = ""
    extra: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    certificates: Path | None = None

    def local(self) -> bool:
        """Whether an index listens on this machine's loopback, which only the host's network reaches."""
        return any(is_loopback(url) for url in (self.url, *self.extra))

    def variables(self) -> dict[str, str]:
        """The same for a uv that runs on this machine: its environment variables."""
        values = {
            "UV_DEFAULT_INDEX": self.url,
            "UV_INDEX": " ".join(self.extra),
            "UV_INSECURE_HOST": " ".join(self.trusted),
            "SSL_CERT_FILE": str(self.certificates or ""),
        }
        return {
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            **{name: value for name, value in values.items() if value},
        }

    def files(self) -> dict[str, bytes]:
        """The files of the build context's ``index/`` folder: name to content."""
        pip = ["[global]"]
        uv = ['index-strategy = "unsafe-best-match"']
        if self.url:
            pip.append(f"index-url = {self.url}")
            uv.append(f"index-url = {json.dumps(self.url)}")
        if self.extra:
            pip.append("extra-index-url = " + " ".join(self.extra))
            uv.append(f"extra-index-url = {json.dumps(self.extra)}")
        if self.trusted:
            pip.append("trusted-host = " + " ".join(self.trusted))
            uv.append(f"allow-insecure-host = {json.dumps(self.trusted)}")
        bundle = self.certificates.read_bytes() if self.certificates else b""
        if bundle:
            pip.append("cert = /build/index/ca.pem")
        return {
            "pip.conf": "\n".join([*pip, ""]).encode(),
            "uv.toml": "\n".join([*uv, ""]).encode(),
            "ca.pem": bundle,
        }


def is_loopback(url: str) -> bool:
    """Whether the address names this machine itself."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def configured(
    environ: Mapping[str, str] = os.environ, home: Path | None = None, *, local: bool = False
) -> Index:
    """The index pip and uv on this machine would ask.

    Args:
        environ: the environment to read.
        home: the user's home folder, by default the real one.
        local: for a program on this machine, which sees what lies on its disk.
    """
    schemes = ("http://", "https://", *(("file://",) if local else ()))
    pip = _pip_settings(environ, home or Path.home())
    uv = _uv_settings(environ, home or Path.home())
    extra = [*uv["extra"], *pip.get("extra-index-url", "").split()]
    bundle = next((Path(name) for name in _bundles(environ, pip) if name and Path(name).is_file()), None)
    return Index(
        url=next((url for url in (*uv["url"], pip.get("index-url", "")) if url.startswith(schemes)), ""),
        extra=tuple(dict.fromkeys(url for url in extra if url.startswith(schemes))),
        trusted=tuple(pip.get("trusted-host", "").split()),
        certificates=bundle,
    )


def _bundles(environ: Mapping[str, str], pip: Mapping[str, str]) -> list[str]:
    """Where a bundle may be, the most specific first."""
    named = [environ.get(name, "") for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
    return [pip.get("cert", ""), *named, ssl.get_default_verify_paths().cafile or ""]


def _pip_settings(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return pip's settings as it merges its files and variables itself (``pip config list``).

    The later of ``global``, ``install`` and ``:env:`` wins (pip's `ConfigOptionParser.get_default_values`).
    """
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    variables = {"PATH": os.environ.get("PATH", ""), **environ, "HOME": str(home)}
    answer = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in answer.stdout.splitlines():  # nothing where pip is missing, or cannot read its own files
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section in sections:
            sections[section][key] = str(ast.literal_eval(value))
    return sections["global"] | sections["install"] | sections[":env:"]


def _uv_files(environ: Mapping[str, str], home: Path) -> list[Path]:
    """Where uv looks, the first to win first (uv's documentation, "Configuration files")."""
    if environ.get("UV_CONFIG_FILE"):
        return [Path(environ["UV_CONFIG_FILE"])]
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    shared = [Path(folder) for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")]
    return [folder / "uv/uv.toml" for folder in (own, *shared, Path("/etc"))]


def _uv_settings(environ: Mapping[str, str], home: Path) -> dict[str, list[str]]:
    """Return uv's indexes: ``url`` and ``extra``, each a list."""
    indexes: dict[str, list[str]] = {"url": [], "extra": []}
    indexes["url"] += [environ[name] for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL") if environ.get(name)]
    for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL"):
        # An index may be written as name=url.
        indexes["extra"] += [
            part.rpartition("=")[2] if "=http" in part else part for part in environ.get(name, "").split()
        ]
    for path in filter(Path.is_file, _uv_files(environ, home)):
        table = tomllib.loads(path.read_text())
        for entry in table.get("index", []):
            indexes["url" if entry.get("default") else "extra"].append(entry["url"])
        indexes["url"] += [table["index-url"]] if "index-url" in table else []
        indexes["extra"] += table.get("extra-index-url", [])
    return indexes
