"""The artifact folder or the folder of temporary files is full: /ready names it, uploads are refused with 507."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.small_disk import fill, mounted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.running import Running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


def test_what_is_full_is_named(start: Callable[..., Running], tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "temporary", "1m") as temporary,
        mounted(tmp_path / "artifacts", "1m") as artifacts,
    ):
        server = start(env={"TMPDIR": str(temporary), "MLFLOW_ARTIFACTS_DESTINATION": str(artifacts)})
        server.wait_ready()
        fillers = [fill(temporary), fill(artifacts)]
        upload = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/run/artifacts/a.bin"
        refused = requests.put(upload, data=os.urandom(100_000), timeout=60)
        assert (refused.status_code, refused.json()["error_code"]) == (507, "RESOURCE_EXHAUSTED")
        answer = requests.get(f"{server.url}/ready", timeout=60)
        assert (answer.status_code, answer.json()["full"]) == (200, ["artifacts", "temporary files"])
        for filler in fillers:
            filler.unlink()
        assert requests.put(upload, data=b"x", timeout=60).status_code == 200
        assert "full" not in requests.get(f"{server.url}/ready", timeout=60).json()
        server.stop()
