"""The Python package index this machine is configured for, as the build stage of an image is told of it.

pip's and uv's own settings are read (their environment variables, then their files); nothing of them is kept
in this repository or in a finished image. What lies on this machine's disk only (``file://``, find-links) is
left out: a container cannot see it, and the lock's hashes hold whichever index answers.
"""

from __future__ import annotations

import configparser
import dataclasses
import json
import os
import ssl
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
        found = {
            "UV_DEFAULT_INDEX": self.url,
            "UV_INDEX": " ".join(self.extra),
            "UV_INSECURE_HOST": " ".join(self.trusted),
            "SSL_CERT_FILE": str(self.certificates or ""),
        }
        return {"UV_INDEX_STRATEGY": "unsafe-best-match", **{k: v for k, v in found.items() if v}}

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
    """Return pip's settings in its order of precedence: the machine's files, the user's, then PIP_*."""
    files = [
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        home / ".config/pip/pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    if environ.get("PIP_CONFIG_FILE"):
        files.append(Path(environ["PIP_CONFIG_FILE"]))
    found: dict[str, str] = {}
    for path in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except configparser.Error:
            continue  # pip itself will say so; a build with the default index may still work
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= dict(parser.items(section))
    found |= {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("PIP_") and value
    }
    return found


def _uv_settings(environ: Mapping[str, str], home: Path) -> dict[str, list[str]]:
    """Return uv's indexes: ``url`` and ``extra``, each a list."""
    found: dict[str, list[str]] = {"url": [], "extra": []}
    found["url"] += [environ[name] for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL") if environ.get(name)]
    for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL"):
        # An index may be written as name=url.
        found["extra"] += [
            part.rpartition("=")[2] if "=http" in part else part for part in environ.get(name, "").split()
        ]
    for path in (Path(environ.get("UV_CONFIG_FILE") or home / ".config/uv/uv.toml"), Path("/etc/uv/uv.toml")):
        if not path.is_file():
            continue
        table = tomllib.loads(path.read_text())
        for entry in table.get("index", []):
            found["url" if entry.get("default") else "extra"].append(entry["url"])
        found["url"] += [table["index-url"]] if "index-url" in table else []
        found["extra"] += table.get("extra-index-url", [])
    return found
