"""A backup while clients log: what was acknowledged before it began is in the set, every artifact opens."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from backups.backup import back_up
from backups.restore import restore
from database.schema import prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLIENTS = 20


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_that_was_acknowledged_is_missing(
    kind: str, new_uri: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "20")
    uri, artifacts = new_uri(kind), tmp_path / "artifacts"
    prepare(uri)
    client = MlflowClient(uri)
    experiment = client.create_experiment("load", artifacts.as_uri() + "/1")
    acknowledged: list[str] = []
    stop = threading.Event()
    failures: list[BaseException] = []

    def log(number: int) -> None:
        mine = MlflowClient(uri)
        try:
            while not stop.is_set():
                run = mine.create_run(experiment).info.run_id
                mine.log_text(run, run, "model.txt")
                mine.log_metric(run, "number", number)
                mine.set_terminated(run)
                acknowledged.append(run)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 300
    while len(acknowledged) < 3 * CLIENTS and not failures:
        assert time.monotonic() < deadline, f"only {len(acknowledged)} runs were logged"
        time.sleep(0.05)
    before = list(acknowledged)
    backup = back_up(uri, tmp_path / "sets", destination=str(artifacts))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures

    fresh = new_uri(kind)
    restore(fresh, backup.path, destination=str(tmp_path / "fresh"))
    restored = MlflowClient(fresh)
    there = {run.info.run_id: run for run in restored.search_runs([experiment], max_results=5000)}
    assert set(before) <= set(there)
    for run in there.values():
        if "number" in run.data.metrics:  # logged after the artifact, so the artifact must be there, too
            file = tmp_path / "fresh" / "1" / run.info.run_id / "artifacts" / "model.txt"
            assert file.read_text() == run.info.run_id
