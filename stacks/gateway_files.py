"""The gateway's inputs on their way to an engine: gateway.yaml, checked, and the provider keys."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from stacks import secrets
from stacks.deployment import write_private
from stacks.settings import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from stacks.deployment import Deployment

FOLDER = "gateway"  # a folder is mounted, not the file: a container sees a file that was replaced in it
EMPTY = "# There is no gateway.yaml yet; gateway/gateway.example.yaml shows one.\nendpoints: []\n"


def check(deployment: Deployment) -> Deployment:
    """Check gateway.yaml before anything starts, and mark the deployment with what it and the keys hold.

    Raises:
        UserError: gateway.yaml is wrong; names the key's path.
    """
    if not _has_gateway(deployment):
        return deployment
    config, keys = _sources(deployment)
    if config.exists():
        from gateway.config import load

        load(config, keys)
    digest = hashlib.sha256(_text(config).encode())
    for file in sorted(keys.iterdir()) if keys.is_dir() else ():
        if file.is_file():
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest()[:4])
    return replace(deployment, gateway_digest=digest.hexdigest()[:12])


def write(deployment: Deployment, *, engine: str) -> None:
    """Put gateway.yaml and the keys where the engine's processes read them."""
    if _has_gateway(deployment):
        config, keys = _sources(deployment)
        folder = deployment.state / FOLDER
        write_private(folder / "gateway.yaml", _text(config))
        if engine == "compose":  # a container's user reads it through its mount; the folder above is closed
            folder.chmod(0o755)
            (folder / "gateway.yaml").chmod(0o444)
        secrets.copy_gateway_keys(deployment, keys, engine=engine)


def _has_gateway(deployment: Deployment) -> bool:
    return bool({"gateway", "gateway-sync"} & set(deployment.services))


def _sources(deployment: Deployment) -> tuple[Path, Path]:
    settings = deployment.settings
    return ROOT / settings.gateway_config.expanduser(), ROOT / settings.gateway_keys.expanduser()


def _text(config: Path) -> str:
    return config.read_text() if config.exists() else EMPTY
