"""What is acknowledged stays: while services are killed, while a store is full, and for large files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from develop.scratch.stack import StackUnderTest, wait_until
from tests.support.inside import Inside, run_python
from tests.support.small_disk import fill

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS = 20
AFTERWARDS = 3  # acknowledged writes of each client, after the kill, that end a trial
_STOCK_CLIENT = """
import hashlib, json, pathlib, sys
peers = set()
sys.addaudithook(lambda event, given: peers.add(str(given[1])) if event == "socket.connect" else None)
import mlflow
folder = pathlib.Path(FOLDER)
client = mlflow.MlflowClient(URL)
run = client.create_run(client.create_experiment("big-" + folder.name)).info.run_id
client.log_artifact(run, str(folder / "big.bin"), "big")
path = client.download_artifacts(run, "big/big.bin", str(folder / "back"))
with open(path, "rb") as file:
    print(json.dumps({"digest": hashlib.file_digest(file, "sha256").hexdigest(), "peers": sorted(peers)}))
"""


def big_artifact(stack: StackUnderTest, folder: Path, *, megabytes: int = 300) -> None:
    """A client with no settings of its own sends a large artifact and fetches it, and speaks to the server alone."""
    digest = hashlib.sha256()
    with (folder / "big.bin").open("wb") as file:
        for _ in range(megabytes):
            block = os.urandom(2**20)
            digest.update(block)
            file.write(block)
    (folder / "back").mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
    clean["MLFLOW_DISABLE_TELEMETRY"] = "true"  # a test calls nobody outside
    code = _STOCK_CLIENT.replace("FOLDER", repr(str(folder))).replace("URL", repr(stack.url))
    answer = json.loads(run_python([sys.executable, "-"], code, clean).splitlines()[-1])
    assert answer["digest"] == digest.hexdigest()
    assert answer["peers"] == [str(("127.0.0.1", stack.settings["port"]))]
    (folder / "big.bin").unlink()
    shutil.rmtree(folder / "back")


class Trial:
    """Clients that write on while something is killed.

    Args:
        url: the tracking server.
        write: logs one thing, by run and step; an exception means that it was not acknowledged.
        clients: how many, each with a run of its own.
    """

    def __init__(self, url: str, write: Callable[[str, int], object], clients: int = CLIENTS) -> None:
        import mlflow

        client = mlflow.MlflowClient(url)
        experiment = client.create_experiment(f"trial-{os.urandom(4).hex()}")
        self.write = write
        self.acknowledged: dict[str, list[int]] = {
            client.create_run(experiment).info.run_id: [] for _ in range(clients)
        }
        self.refused: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(run,)) for run in self.acknowledged]

    def _work(self, run: str) -> None:
        step = 0
        while not self._stop.is_set():
            try:
                self.write(run, step)
                self.acknowledged[run].append(step)
            except Exception as error:  # whatever it is: this step was not acknowledged
                self.refused.append(str(error))
                time.sleep(0.2)
            step += 1

    def survive(self, kill: Callable[[], None]) -> dict[str, list[int]]:
        """Kill once everybody writes, wait until everybody writes again; what was acknowledged, by run."""
        for thread in self._threads:
            thread.start()
        try:
            self._progress(AFTERWARDS)
            kill()
            time.sleep(1)  # what was acknowledged before it was dead is no sign of life
            self._progress(AFTERWARDS)
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
        return self.acknowledged

    def _progress(self, count: int) -> None:
        before = {run: len(steps) for run, steps in self.acknowledged.items()}

        def done() -> bool:
            return all(len(steps) >= before[run] + count for run, steps in self.acknowledged.items())

        wait_until(done, lambda: f"{self.acknowledged} {self.refused[-3:]}")


def metrics_survive(inside: Inside, victim: str) -> None:
    """A service is killed while clients log metrics: it comes back, and every acknowledged metric is there."""
    import mlflow

    client = mlflow.MlflowClient(inside.stack.url)
    trial = Trial(inside.stack.url, lambda run, step: client.log_metric(run, "m", step * 0.5, step=step))
    before = inside.identities()[victim]
    acknowledged = trial.survive(lambda: inside.kill(victim))
    inside.stack.wait_healthy()
    assert inside.identities()[victim] != before
    for run, steps in acknowledged.items():
        kept = {metric.step: metric.value for metric in client.get_metric_history(run, "m")}
        assert {step: kept.get(step) for step in steps} == {step: step * 0.5 for step in steps}


def artifacts_survive(inside: Inside, victim: str, folder: Path) -> None:
    """A service is killed while artifacts go up: it comes back, and every acknowledged artifact is whole."""
    import mlflow

    client = mlflow.MlflowClient(inside.stack.url)
    contents: dict[str, str] = {}

    def upload(run: str, step: int) -> None:
        path = folder / run / f"{step}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(2**20))
        contents[f"{run}/{step}"] = hashlib.sha256(path.read_bytes()).hexdigest()
        client.log_artifact(run, str(path))
        path.unlink()

    acknowledged = Trial(inside.stack.url, upload, clients=4).survive(lambda: inside.kill(victim))
    inside.stack.wait_healthy()
    for run, steps in acknowledged.items():
        back = Path(client.download_artifacts(run, "", str(folder)))
        for step in steps:
            assert (
                hashlib.sha256((back / f"{step}.bin").read_bytes()).hexdigest() == contents[f"{run}/{step}"]
            )


def full_store_is_told(small: StackUnderTest, disk: Path, folder: Path) -> None:
    """A store of 30 MB is up: what does not fit is told, what fits is whole, and all goes well once there is room.

    Whoever asks how the stack is hears of it, too.

    Args:
        small: the stack.
        disk: the store's, a tmpfs that root can give 100 MB.
        folder: for files.
    """
    import mlflow

    client = mlflow.MlflowClient(small.url)
    run = client.create_run("0").info.run_id
    kept, large = folder / "kept.bin", folder / "large.bin"
    kept.write_bytes(os.urandom(10 * 2**20))
    large.write_bytes(os.urandom(40 * 2**20))
    client.log_artifact(run, str(kept))
    with pytest.raises(requests.HTTPError, match="the artifact store is full, or lost the upload"):
        client.log_artifact(run, str(large))
    assert [file.path for file in client.list_artifacts(run)] == ["kept.bin"]
    (folder / "back").mkdir()
    back = client.download_artifacts(run, "kept.bin", str(folder / "back"))
    assert kept.read_bytes() == (folder / "back" / "kept.bin").read_bytes(), back
    client.log_metric(run, "still", 1.0)
    filler = fill(disk)
    assert small.service("mlflow")["full"] == ["artifacts"]
    [full] = [shown for shown in small.status()["disks"] if shown["full"]]
    assert full["folder"] in {str(disk), f"volume {disk.parent.name}"}
    assert f"{full['folder']} is full" in small.invoke("status", f"--stack={small.name}").stdout
    filler.unlink()
    assert "full" not in small.service("mlflow")
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    client.log_artifact(run, str(large))
    client.download_artifacts(run, "large.bin", str(folder / "back"))
    assert large.read_bytes() == (folder / "back" / "large.bin").read_bytes()
