"""Deployments for tests of what needs no machine: everything that opening would read stands here."""

from __future__ import annotations

from pathlib import Path

from stacks import catalogue
from stacks.definition import settings
from stacks.definition.deployment import Deployment
from stacks.definition.services import SERVICES
from stacks.state.environments import pinned


def deployment(stack: str, *overrides: str, version: str = "") -> Deployment:
    """A stack of two workers in /srv/state, of a checkout in /srv/checkout."""
    entry = catalogue.load(stack)
    state = Path("/srv/state") / stack
    return Deployment(
        stack=entry,
        settings=settings.load({**entry.settings, "workers": 2}, list(overrides), surroundings=False),
        state=state,
        project=f"{stack}-0a1b2c",
        root=Path("/srv/checkout"),
        python="/srv/venv/bin/python",
        mlflow_python="/srv/venv/bin/python",
        mlflow_version=version or pinned(),
        workers=2,
        socket=state / "supervisord.sock",
        postgres_data=state / "data" / "postgres",
        images={service.image: f"mlflow-stacks/{service.image}:test" for service in SERVICES.values()},
    )
