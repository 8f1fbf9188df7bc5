"""Containers and volumes of a test; whatever it makes goes with it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import Container, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Runner


@pytest.fixture
def run() -> Iterator[Runner]:
    """Start containers: ``run("--env=A=b", image, "command")``."""
    started: list[str] = []

    def start(*argv: str) -> Container:
        identity = docker("run", "--detach", *argv)
        started.append(identity)
        return Container(identity)

    yield start
    for identity in started:
        docker("rm", "--force", "--volumes", identity, check=False)


@pytest.fixture
def volume() -> Iterator[str]:
    """A new named volume."""
    name = docker("volume", "create", f"mlflow-stacks-test-{uuid.uuid4().hex[:12]}")
    yield name
    docker("volume", "rm", "--force", name, check=False)
