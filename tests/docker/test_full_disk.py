"""A full volume on Compose: what died of it is said at once, and which volume it is; `cleanup` and `down` work."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest
from tests.support.containers import volume
from tests.support.small_disk import fill, logged, mounted, there

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk"),
]
NAMED = "--stack=minio-postgres"
UP = ("up", NAMED, "--engine=compose", "--timeout=100000")


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[tuple[StackUnderTest, Path]]:
    """A stack that was never up; PostgreSQL's volume lies on a disk of 1 MB."""
    with mounted(tmp_path / "disk", "1m") as disk:
        data = disk / "postgres"
        data.mkdir()
        os.chown(data, 999, 999)
        stack = StackUnderTest("minio-postgres", "compose", tmp_path / "state", free_ports())
        volume(stack, "postgres-data", "type=none", "o=bind", f"device={data}")
        yield stack, disk
        (disk / "filler").unlink(missing_ok=True)
        stack.down("--volumes", "--yes")


def test_a_full_volume(cramped: tuple[StackUnderTest, Path], tmp_path: Path) -> None:
    stack, disk = cramped
    died = stack.invoke(*UP, expect=1).stderr
    assert "error: service 'postgres' ends whenever it is started" in died
    assert "No space left on device" in died
    assert f"all of it: invoke logs {NAMED} --service=postgres" in died

    subprocess.run(["mount", "-o", "remount,size=150m", str(disk)], check=True)
    stack.invoke(*UP)  # it waits for its next start, and gets it now
    runs = logged(stack, tmp_path)
    stack.invoke("backup", NAMED, f"--to={tmp_path / 'sets'}")
    filler = fill(disk)
    server = stack.service("mlflow")
    assert (server["health"], server["full"]) == ("unhealthy", ["backend store"])
    full = "postgres-data is full: 0 bytes of 157.3 MB are free"
    assert full in stack.invoke("status", NAMED, expect=1).stdout
    for words in (UP, ("restore", NAMED, "--yes", f"--backup={tmp_path / 'sets'}/latest")):
        said = stack.invoke(*words, expect=1).stderr
        assert "Traceback" not in said
        assert full in said
        assert f"invoke cleanup {NAMED}" in said
    assert stack.service("mlflow")["state"] == "running"

    cleaned = stack.invoke("cleanup", NAMED, "--yes", f"--run-ids={','.join(runs[:2])}", "--json")
    assert "set aside for this" in cleaned.stderr
    assert json.loads(cleaned.stdout)["deleted"]["runs"] == 2
    fill(disk)
    stack.down()
    filler.unlink()
    stack.invoke(*UP)
    assert (disk / "postgres" / "reserve").stat().st_size > 0
    assert all(there(stack, run, tmp_path) for run in runs[2:])
