"""The verbs of a stack: what `tasks.py` calls, free of Invoke."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from console import UserError, confirm, note
from disks import written_to
from stacks import engines
from stacks.definition.rendering import FRAMES
from stacks.definition.rendering import render as render_files
from stacks.definition.settings import changes
from stacks.engines.compose import with_images
from stacks.state import environments, opening, record
from stacks.state.record import JOURNAL, locked
from stacks.verbs import rotation, upgrade

if TYPE_CHECKING:
    from pathlib import Path

    from stacks.definition.deployment import Deployment
    from stacks.engines import Engine


def up(deployment: Deployment, *, engine: str, timeout: float) -> dict[str, Any]:
    """Bring a stack up and wait until every service is ready.

    Args:
        deployment: the stack, as its settings want it now.
        engine: ``auto``, ``compose`` or ``host``.
        timeout: seconds until the wait is given up.

    Returns:
        The shape of ``up --json``.

    Raises:
        UserError: what is in the way.
    """
    started = time.monotonic()
    _make_way(deployment)
    with locked(deployment, "up"):
        if (deployment.state / JOURNAL).exists():
            upgrade.recover(opening.open_recorded(deployment.name), timeout=timeout)
            deployment = opening.reopened(deployment)
        environments.settle(deployment)
        _say(deployment)
        chosen = engines.choose(deployment, engine)
        ran_before = any(status.state == "running" for status in chosen.services())
        try:
            chosen.up(timeout=timeout)
        except KeyboardInterrupt:
            raise _interrupted(chosen, ran_before=ran_before) from None
        rotation.finish(deployment, chosen.name)
        chosen.keep_room()
        return {**describe(chosen), "seconds": round(time.monotonic() - started, 1)}


def _say(deployment: Deployment) -> None:
    """What is another now than at the last `up`, and which endpoints will not answer."""
    if deployment.recorded.engine:
        for line in changes(opening.last_settings(deployment), deployment.settings):
            note(line)
    for name, reason in (deployment.gateway.missing if deployment.gateway else {}).items():
        note(f"the gateway's '{name}' has no provider key: {reason}")


def _make_way(deployment: Deployment) -> None:
    """On a full disk PostgreSQL does not start, and without it nothing there can be cleaned up."""
    stores = deployment.having("keeps_data")
    if stores and deployment.recorded.engine:
        engine = engines.running(deployment)
        if any(status.name in stores and not status.ready for status in engine.services()):
            engine.give_up_room()


def _interrupted(engine: Engine, *, ran_before: bool) -> UserError:
    """After Ctrl-C there is a whole stack or none."""
    name = engine.deployment.name
    if ran_before:
        return UserError(
            f"interrupted: stack '{name}' was running before and still is, perhaps half changed",
            f"see: invoke status --stack={name}",
            f"finish: invoke up --stack={name}",
        )
    note(f"interrupted: taking stack '{name}' down again")
    engine.down(volumes=False)
    return UserError(
        f"interrupted: nothing of stack '{name}' runs; data is kept", f"again: invoke up --stack={name}"
    )


def describe(engine: Engine) -> dict[str, Any]:
    """The shape that ``up --json`` and ``status --json`` share, without ``seconds``."""
    deployment = engine.deployment
    return {
        "stack": deployment.name,
        "engine": engine.name,
        "project": deployment.project,
        "services": [service.as_json() for service in engine.services()],
        **({"gateway": base_url} if (base_url := deployment.gateway_base_url) else {}),
    }


def status(deployment: Deployment) -> dict[str, Any]:
    """How a stack is: its services with their memory, and the disk its data takes.

    ``missing`` names those that should run well and do not: none of a stack that was taken down.
    """
    started = time.monotonic()
    engine = engines.running(deployment)
    answer = describe(engine)
    memory = engine.memory()
    for service in answer["services"]:
        if service["name"] in memory:
            service["memory"] = memory[service["name"]]
    engine.measure()
    disks = [disk.as_json() for disk, _ in written_to().values()]
    answer["down"] = deployment.recorded.down
    well = {"healthy", "done"}
    away = [service["name"] for service in answer["services"] if service.get("health") not in well]
    answer["missing"] = [] if answer["down"] else away
    # one that does not answer would only be waited for
    held = {} if set(away) & set(deployment.having("keeps_data")) else engine.stores()
    return {**answer, **held, "disks": disks, "seconds": round(time.monotonic() - started, 1)}


def down(deployment: Deployment, *, volumes: bool, yes: bool) -> bool:
    """Stop and remove a stack; its data too, after a question, with `volumes`.

    Returns:
        Whether it was done (False: the question was answered with no).
    """
    engine = engines.running(deployment)
    if volumes:
        note(f"this removes stack '{deployment.name}' ({engine.name} engine) and, for good, its data:")
        for line in engine.data():
            note(f"  {line}")
        if not confirm("Remove all of it?", yes=yes):
            return False
    with locked(deployment, "down"):
        engine.down(volumes=volumes)
        if not volumes:
            record.taken_down(deployment.state)
    return True


def logs(deployment: Deployment, *, service: str | None, follow: bool, tail: int) -> None:
    """Print a stack's logs.

    Raises:
        UserError: the stack has no such service, or was never up.
    """
    if service and service not in deployment.services:
        raise UserError(
            f"stack '{deployment.name}' has no service '{service}'",
            f"its services: {', '.join(deployment.services)}",
        )
    engines.running(deployment).logs(service=service, follow=follow, tail=tail)


def render(deployment: Deployment, *, engine: str, output: Path | None) -> dict[str, str]:
    """The files that `up` would write; written to `output` when it is given, and nothing is started."""
    environments.settle(deployment)
    name = engine if engine in FRAMES else engines.choose(deployment, engine).name
    if name == "compose":
        deployment = with_images(deployment, make=False)
    files = render_files(deployment, name)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            (output / path).write_text(text)
    return files
