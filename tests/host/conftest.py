"""Fixtures of the tests against real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from develop.scratch.stock import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def s3_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Serve a bucket named ``bucket`` with rclone, set what MLflow reads to find it; yield its folder."""
    root = tmp_path_factory.mktemp("s3")
    (root / "bucket").mkdir()
    with s3_server(root) as where, pytest.MonkeyPatch.context() as patch:
        for name, value in where.items():
            patch.setenv(name, value)
        yield root / "bucket"
