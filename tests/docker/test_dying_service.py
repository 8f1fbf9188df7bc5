"""A container that dies whenever it is started: `up` says what it printed, and does not wait for its time to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest
from tests.support.containers import volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.docker


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[StackUnderTest]:
    """PostgreSQL cannot make its cluster: the volume holds 1 MB."""
    stack = StackUnderTest("minio-postgres", "compose", tmp_path / "state", free_ports())
    volume(stack, "postgres-data", "type=tmpfs", "device=tmpfs", "o=size=1m")
    yield stack
    stack.down("--volumes", "--yes")


def test_up_says_what_a_service_printed_that_dies_at_every_start(cramped: StackUnderTest) -> None:
    said = cramped.invoke(
        "up", "--stack=minio-postgres", "--engine=compose", "--timeout=100000", expect=1
    ).stderr
    assert "error: service 'postgres' ends whenever it is started" in said
    assert "No space left on device" in said
    assert "all of it: invoke logs --stack=minio-postgres --service=postgres" in said
