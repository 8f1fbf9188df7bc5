"""Usage and the schedule, on the real data sets."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts import open_store
from cleanup import usage
from cleanup.schedule import Service
from tests.support import answers
from tests.support.world import dangling

if TYPE_CHECKING:
    from tests.support.cleaned import World

ROOT = Path(__file__).parents[3]


def test_usage_adds_up_to_what_there_is(world: World, tmp_path: Path) -> None:
    out = io.StringIO()
    argv = ["--backend-store-uri", world.uri, "--artifacts-destination", world.destination, "--json"]
    with contextlib.redirect_stdout(out):
        assert usage.main([*argv, "--html", str(tmp_path / "usage.html")]) == 0
    totals = answers.read("usage", out.getvalue())
    objects = list(open_store(world.destination).list())
    assert totals["total"]["objects"] == len(objects)
    assert totals["total"]["bytes"] == sum(item.size for item in objects)
    assert totals["total"]["runs"] == len(world.rows("SELECT run_uuid FROM runs"))
    assert totals["total"]["metric_rows"] == world.rows("SELECT count(*) FROM metrics")[0]
    by_id = {item["id"]: item for item in totals["experiments"]}
    assert by_id[world.ids["gone"]]["deleted_share"] == 1
    assert 0 < by_id[world.ids["kept"]]["deleted_share"] < 1  # deleted, but a run in it was restored
    assert 0 < by_id[world.ids["one"]]["deleted_share"] < 1
    assert (tmp_path / "usage.html").read_text().startswith("<!doctype html>")


def test_usage_prints_a_table(local_world: World) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "cleanup.usage", "--top=2"],
        cwd=ROOT,
        env=os.environ
        | {
            "MLFLOW_BACKEND_STORE_URI": local_world.uri,
            "MLFLOW_ARTIFACTS_DESTINATION": local_world.destination,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "metric rows" in answer.stdout
    assert "smaller ones" in answer.stderr


def test_a_scheduled_run_cleans_up_and_logs_what_it_did(local_world: World, capfd: object) -> None:
    flags = ["--backend-store-uri", local_world.uri, "--artifacts-destination", local_world.destination]
    assert Service("* * * * *", flags).once() == 0
    assert "plain-deleted" not in local_world.runs()
    assert dangling(local_world.engine) == {}
    assert '"deleted"' in capfd.readouterr().err  # type: ignore[attr-defined]


def test_the_schedule_waits_and_ends_at_once_when_told(local_world: World) -> None:
    argv = [sys.executable, "-m", "cleanup.schedule", "0 0 1 1 *", "--", "--older-than=30d"]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert "next cleanup at" in process.stderr.readline()
    time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == 0
    assert "plain-deleted" in local_world.runs()


def test_bad_flags_of_a_schedule_are_refused_at_once() -> None:
    argv = [sys.executable, "-m", "cleanup.schedule", "0 0 1 1 *", "--", "--older-than=30"]
    answer = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "error: --older-than takes an age" in answer.stderr
