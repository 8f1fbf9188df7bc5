"""``invoke prune``: images and environments that this project made and that nothing uses any more.

Ours are images with this project's label, and what lies in a stack's own folder of environments. Used is what this
checkout builds today, what a container was made from (running or not, of whichever checkout), and what a stack's record
names. What is removed can be made again: an image by `invoke up`, an environment by `invoke upgrade`.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import UserError, confirm, note, size
from images import build
from images import engine as docker
from stacks import catalogue
from stacks.state import environments
from stacks.state.opening import open_recorded
from stacks.state.record import JOURNAL, locked

if TYPE_CHECKING:
    from stacks.definition.deployment import Deployment


@dataclass(frozen=True)
class Unused:
    """Something that goes.

    Attributes:
        kind: ``image`` or ``environment``.
        name: an image's tag, or its id where it has none; a version, with its stack.
        bytes: that it takes; an image's count layers that it shares with others.
        place: an image's id, or a path.
        stack: whose environment it is; empty for an image.
    """

    kind: str
    name: str
    bytes: int
    place: str
    stack: str = ""


def prune(stack: str = "", *, yes: bool = False) -> dict[str, Any]:
    """Show what nothing uses, ask, remove it, and look again.

    Args:
        stack: only what this stack left behind; by default that of all, and images that no stack names.
        yes: do not ask.

    Returns:
        The shape of ``prune --json``.

    Raises:
        UserError: an unknown stack, or one that is being changed.
    """
    deployments = [open_recorded(name) for name in ([stack] if stack else catalogue.names())]
    plan = find(deployments, images=not stack)
    for unused in plan:
        note(f"{unused.kind} {unused.name}: {size(unused.bytes)}")
    total = sum(unused.bytes for unused in plan)
    if not plan:
        note("nothing to remove: every image and environment of ours is in use")
    agreed = bool(plan) and confirm(f"Remove these {len(plan)}, up to {size(total)}?", yes=yes)
    if agreed:
        _remove(plan, deployments)
    left = find(deployments, images=not stack) if agreed else plan
    gone = [unused for unused in plan if unused not in left]
    for unused in left if agreed else []:
        note(f"still there: {unused.kind} {unused.name}")
    return {
        "unused": [asdict(unused) for unused in plan],
        "removed": len(gone),
        "bytes": sum(unused.bytes for unused in gone),
        "left": len(left),
    }


def find(deployments: list[Deployment], *, images: bool) -> list[Unused]:
    """What nothing uses; changes nothing.

    Args:
        deployments: the stacks whose environments are looked through, as their last `up` left them.
        images: look through the images too, on the engine that answers, if one does.
    """
    named = {reference for deployment in deployments for reference in deployment.recorded.images.values()}
    unused = [
        Unused("image", tag or identity.removeprefix("sha256:")[:12], number, identity)
        for identity, tag, number in (build.unused(named) if images and docker.answers() else [])
    ]
    for deployment in deployments:
        if (deployment.state / JOURNAL).exists():  # an upgrade that was cut off is put back from there
            continue
        for path in environments.others(deployment):
            name = f"{path.name} of stack '{deployment.name}'"
            unused.append(Unused("environment", name, _bytes(path), str(path), deployment.name))
    return unused


def _remove(plan: list[Unused], deployments: list[Deployment]) -> None:
    build.remove(unused.place for unused in plan if unused.kind == "image")
    for deployment in deployments:
        own = [Path(unused.place) for unused in plan if unused.stack == deployment.name]
        if not own:
            continue
        try:
            with locked(deployment, "prune"):
                for path in own:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError as error:
            raise UserError(
                f"cannot remove {error.filename}: {error.strerror}", f"see: ls -ld {error.filename}"
            ) from None


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())
