"""The gateway's inputs: gateway.yaml, checked, and the provider keys, from where the user keeps them to an engine."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from console import UserError
from files import require_file
from stacks.definition.deployment import GatewayInputs, services_of
from stacks.definition.services import SERVICES
from stacks.definition.settings import ROOT
from stacks.state import secrets
from stacks.state.record import make_private_dir

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from stacks.catalogue import Stack
    from stacks.definition.deployment import Deployment
    from stacks.definition.settings import Settings

FOLDER = "gateway"  # a folder is mounted, not the file: a container sees a file that was replaced in it
EMPTY = "# There is no gateway.yaml yet; gateway/gateway.example.yaml shows one.\nendpoints: []\n"


def wanted(stack: Stack, settings: Settings, state: Path, before: Collection[str]) -> GatewayInputs | None:
    """What the user gives the gateway now; None where the stack has none.

    A key that gateway.yaml calls ``$NAME`` may be exported: it is taken from the environment of this `up`, or else
    stays what it was.

    Args:
        stack: of the catalogue.
        settings: the merged settings.
        state: the stack's state directory.
        before: keys that were exported for an earlier `up`.

    Raises:
        UserError: gateway.yaml is wrong (names the key's path), or a file cannot be read.
    """
    if not _has_gateway(services_of(stack, settings)):
        return None
    config = ROOT / settings.gateway_config.expanduser()
    keys = ROOT / settings.gateway_keys.expanduser()
    given = _read(config, keys)
    if not config.exists():
        return given
    import yaml

    from gateway.config import load

    kept = {name: _text(path) for name in before if (path := _keys(state) / name).is_file()}
    known = {**kept, **os.environ}
    missing = load(config, keys, known).missing()
    named = set(_variables(yaml.safe_load(given.config)))
    exported = {name: known[name] for name in sorted(named) if known.get(name)}
    return GatewayInputs(given.config, {**given.keys, **exported}, tuple(exported), missing)


def _variables(node: object) -> Iterator[str]:
    """The names of variables that gateway.yaml takes keys from."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _variables(part)
    elif isinstance(node, str) and re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", node):
        yield node[1:]


def _keys(state: Path) -> Path:
    return state / secrets.FOLDER / "gateway-keys"


def written(state: Path, services: Collection[str], exported: Collection[str]) -> GatewayInputs | None:
    """What the last `up` gave the gateway, with the names of keys that were exported; None where it has none."""
    if not _has_gateway(services):
        return None
    return replace(_read(state / FOLDER / "gateway.yaml", _keys(state)), exported=tuple(exported))


def write(deployment: Deployment, *, engine: str) -> None:
    """Put gateway.yaml and the keys where the engine's processes read them."""
    if deployment.gateway:
        make_private_dir(secrets.folder(deployment))
        _mirror({"gateway.yaml": deployment.gateway.config}, deployment.state / FOLDER, engine)
        _mirror(deployment.gateway.keys, _keys(deployment.state), engine)


def _read(config: Path, keys: Path) -> GatewayInputs:
    files = [file for file in sorted(keys.iterdir()) if file.is_file()] if keys.is_dir() else []
    text = _text(config) if config.exists() else EMPTY
    return GatewayInputs(text, {file.name: _text(file) for file in files})


def _text(file: Path) -> str:
    try:
        require_file(file)
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"cannot read {file}: {reason}") from None


def _mirror(files: Mapping[str, str], target: Path, engine: str) -> None:
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


def _has_gateway(services: Collection[str]) -> bool:
    return any(SERVICES[name].reads_gateway for name in services)
