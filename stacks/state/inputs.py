"""The gateway's inputs on their way to an engine: gateway.yaml, checked, and the provider keys."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from stacks.definition.settings import ROOT
from stacks.state import secrets
from stacks.state.deployment import make_private_dir

if TYPE_CHECKING:
    from pathlib import Path

    from stacks.state.deployment import Deployment

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
        make_private_dir(secrets.folder(deployment))
        _mirror({"gateway.yaml": _text(config)}, deployment.state / FOLDER, engine)
        found = (
            {file.name: file.read_text() for file in keys.iterdir() if file.is_file()}
            if keys.is_dir()
            else {}
        )
        _mirror(found, secrets.folder(deployment) / "gateway-keys", engine)


def _mirror(files: dict[str, str], target: Path, engine: str) -> None:
    """Make a folder hold just these files; the folder itself stays, for containers have it mounted.

    Its files can be read by a container's user, who enters it through that mount; the folder above is closed.
    """
    target.mkdir(mode=0o755, exist_ok=True)
    target.chmod(0o755)
    for name, text in files.items():
        secrets.write(target / name, text, engine)
    for file in target.iterdir():
        if file.name not in files:
            file.unlink()


def _has_gateway(deployment: Deployment) -> bool:
    return bool({"gateway", "gateway-sync"} & set(deployment.services))


def _sources(deployment: Deployment) -> tuple[Path, Path]:
    settings = deployment.settings
    return ROOT / settings.gateway_config.expanduser(), ROOT / settings.gateway_keys.expanduser()


def _text(config: Path) -> str:
    return config.read_text() if config.exists() else EMPTY
