"""Fixtures of the tests of our server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.running import Running, launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start `python -m server` on a new SQLite database in a temporary folder; stopped after the test."""
    running: list[Running] = []

    def start_server(
        *flags: str, port: int | None = None, env: Mapping[str, str] | None = None, store: str = ""
    ) -> Running:
        environment = {
            "MLFLOW_BACKEND_STORE_URI": store or f"sqlite:///{tmp_path / 'mlflow.db'}",
            **(env or {}),
        }
        running.append(launch(tmp_path, "server", "--port", "{port}", *flags, port=port, env=environment))
        return running[-1]

    yield start_server
    for server in running:
        server.stop()
