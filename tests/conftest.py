"""Fixtures for every test: a quiet mlflow client that never waits for what is not there."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

for name in ("gateways", "inside", "quickstart", "secrecy", "survival"):
    pytest.register_assert_rewrite(f"tests.support.{name}")  # they say what they compared, too
# Whoever runs the tests in the background may have Ctrl-C ignored, and programs started from here would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
    GIT_PYTHON_REFRESH="quiet",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a longer run kill more often what is dear to kill."""
    parser.addoption(
        "--kills", type=int, default=6, help="tries of each test that kills up, down and their like"
    )


@pytest.fixture(autouse=True, scope="module")
def own_servers() -> Iterator[None]:
    """The servers that a module's client spoke to are not those of the next one."""
    yield
    if mlflow := sys.modules.get("mlflow"):
        mlflow.set_registry_uri(None)
        mlflow.set_tracking_uri(None)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):  # where mlflow keeps them for its children
        os.environ.pop(name, None)
