"""New secrets for a stack that holds data.

The new values are written beside the old ones, all at once, before anything changes. From then on every `up` brings
the stack to them, by steps that are idempotent: `secrets.ensure` puts them in place and keeps those before where a
store must be opened with them; `services.role` sets PostgreSQL's passwords; `services.rekey` opens the gateway's stored
secrets to the new passphrase; the object store reads its keys when it starts, and `services.bucket` renews MLflow's.
When all of it is healthy, what was kept is removed. So a rotation that was cut off is finished by the next one, or by
the next `up`.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from console import UserError, confirm, note
from files import sync
from stacks import engines
from stacks.definition.services import SERVICES
from stacks.state import opening, secrets
from stacks.state.record import ROTATION, locked, make_private_dir

if TYPE_CHECKING:
    from stacks.definition.deployment import Deployment


def rotate(deployment: Deployment, *, yes: bool, timeout: float) -> dict[str, Any] | None:
    """Change every secret of a stack, or finish a change that was cut off; the stack restarts.

    Args:
        deployment: the stack, as its last `up` left it.
        yes: no question.
        timeout: seconds until the wait for the restarted stack is given up.

    Returns:
        The shape of ``secrets-rotate --json``; None after a no.

    Raises:
        UserError: the stack was never up, has no secrets of its own, or does not become healthy.
    """
    started = time.monotonic()
    stack = deployment.name
    engine = engines.running(deployment)
    names = deployment.rotated
    for line in _left_alone(deployment):
        note(line)
    if not names:
        raise UserError(
            f"stack '{stack}' has no secrets of its own", "stacks with PostgreSQL or an object store do"
        )
    begun = (deployment.state / ROTATION).exists()
    note(f"{'a rotation was cut off and goes on' if begun else 'new values'}: {', '.join(names)}")
    if not confirm(f"Restart stack '{stack}' with them? It is away for some seconds.", yes=yes):
        return None
    with locked(deployment, "secrets-rotate"):
        engine.check_room()
        try:
            begin(deployment, names)
            engine.down(volumes=False)
            deployment = opening.reopened(deployment)
            engine = engines.running(deployment)
            engine.up(timeout=timeout)
        except KeyboardInterrupt:
            raise UserError(
                "interrupted: some secrets are new, some are not",
                f"finish: invoke secrets-rotate --stack={stack}",
            ) from None
        finish(deployment, engine.name)
    return {
        "stack": stack,
        "rotated": names,
        "generation": deployment.generation,
        "seconds": round(time.monotonic() - started, 1),
    }


def begin(deployment: Deployment, names: list[str]) -> None:
    """Write the new values beside the old ones, all or none; nothing, where that was done before."""
    place = deployment.state / ROTATION
    if place.exists():
        return
    fresh = place.with_name(f"{place.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    make_private_dir(fresh)
    for name in names:
        secrets.write(fresh / name, secrets.fresh(name), "host")  # for us alone, on either engine
    secrets.write(fresh / "generation", str(deployment.generation + 1), "host")
    sync(fresh)
    fresh.rename(place)
    sync(place.parent)


def finish(deployment: Deployment, engine: str) -> None:
    """Forget the old values, after an `up` that went well; nothing, where no rotation was begun."""
    place = deployment.state / ROTATION
    for rest in ("new", "done"):  # of one that was killed before it counted, or after it ended
        shutil.rmtree(place.with_name(f"{place.name}.{rest}"), ignore_errors=True)
    if not place.exists():
        return
    for name in secrets.PREVIOUS:
        path = secrets.folder(deployment) / name
        if path.exists():
            secrets.write(path, "", engine)
    ended = place.with_name(f"{place.name}.done")
    place.rename(ended)
    shutil.rmtree(ended)


def _left_alone(deployment: Deployment) -> list[str]:
    """What is not ours to change, a line each."""
    external = [
        SERVICES[name].external
        for name in deployment.services
        if SERVICES[name].checks_external(deployment.settings)
    ]
    if deployment.gateway:
        keys = deployment.settings.gateway_keys
        external.append(f"provider keys; replace the file in {keys}, then invoke up")
    return [f"left alone: {what}" for what in external]
