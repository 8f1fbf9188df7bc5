"""Which engine runs a stack: the one asked for, the one it runs on already, or the best there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console import UserError, note
from stacks.engines.compose import ComposeEngine
from stacks.engines.host import HostEngine
from stacks.state.record import RECORD

if TYPE_CHECKING:
    from stacks.definition.deployment import Deployment
    from stacks.engines.base import Engine

ENGINES: dict[str, type[Engine]] = {"compose": ComposeEngine, "host": HostEngine}


def choose(deployment: Deployment, wanted: str) -> Engine:
    """The engine for `up` and `render`; says which one it is and why when the choice was left to us.

    Args:
        deployment: what is to run.
        wanted: ``auto``, ``compose`` or ``host``.

    Raises:
        UserError: no such engine, it cannot run here, or the stack runs on the other one.
    """
    if wanted != "auto" and wanted not in ENGINES:
        raise UserError(f"unknown engine '{wanted}'", "engines: auto, compose, host")
    recorded = deployment.recorded.engine
    if recorded and wanted not in {"auto", recorded}:
        raise UserError(
            f"stack '{deployment.name}' was brought up on the {recorded} engine, and its data is there",
            f"go on with it: invoke up --stack={deployment.name} --engine={recorded}",
            f"or remove it for good: invoke down --stack={deployment.name} --volumes",
        )
    if recorded:
        return _checked(deployment, recorded)
    if wanted != "auto":
        return _checked(deployment, wanted)
    problem = ComposeEngine.why_not()
    if problem is None:
        note("engine: compose (Docker Compose answers here)")
        return ComposeEngine(deployment)
    note(f"engine: host ({problem[0]})")
    return _checked(deployment, "host")


def _checked(deployment: Deployment, name: str) -> Engine:
    if name not in ENGINES:
        raise UserError(
            f"stack '{deployment.name}' was brought up on the engine '{name}', which this version does not know",
            f"engines: {', '.join(ENGINES)}",
            f"the record of that up: {deployment.state / RECORD}",
        )
    problem = ENGINES[name].why_not()
    if problem:
        raise UserError(f"the {name} engine cannot run here: {problem[0]}", problem[1], "see: invoke doctor")
    return ENGINES[name](deployment)


def running(deployment: Deployment) -> Engine:
    """The engine of the last `up`, for every verb that works on what is there.

    Raises:
        UserError: the stack was never brought up here.
    """
    recorded = deployment.recorded.engine
    if not recorded:
        raise UserError(
            f"stack '{deployment.name}' was never brought up here ({deployment.state} has no record)",
            f"start it: invoke up --stack={deployment.name}",
        )
    return _checked(deployment, recorded)
