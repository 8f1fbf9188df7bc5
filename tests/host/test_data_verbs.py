"""The data verbs through ``invoke``, on every stack of the host engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest
from tests.support import data_verbs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", params=["local", "minio-postgres", "quickstart"])
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StackUnderTest]:
    subject = StackUnderTest(request.param, "host", tmp_path_factory.mktemp("state"), free_ports())
    subject.up()
    yield subject
    subject.down("--volumes", "--yes")


@pytest.fixture
def bucket_endpoint(stack: StackUnderTest) -> str:
    return f"http://127.0.0.1:{stack.settings['object_store_port']}"


class TestOnHost(data_verbs.OnEitherEngine):
    """What Compose runs as well."""
