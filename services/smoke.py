"""``python -m services.smoke --url=URL``: does a tracking server work, as a client sees it?

Creates an experiment of its own, logs a run with a parameter, metrics and an artifact, reads all of it back,
reads a run that was there before, and deletes what it made (``invoke cleanup`` then removes it for good).
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import arguments
import flags
import values
from console import UserError, emit_json, note, user_errors
from flags import Flag, flag
from verbs import Request, verb

if TYPE_CHECKING:
    from collections.abc import Sequence


def smoke_test(url: str, old_run: str | None = None) -> dict[str, object]:
    """Use a tracking server once, with the MLflow client that is installed.

    Args:
        url: its address.
        old_run: a run that must be readable; by default the newest one that is there, if any.

    Returns:
        ``{"url", "old_run", "seconds"}``; `old_run` is None when there was none.

    Raises:
        UserError: a step failed; says which, and what the server answered.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ["MLFLOW_TRACKING_URI"] = url  # older clients look there for the server of an artifact
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    begun, step = time.monotonic(), "connect"
    client = MlflowClient(url)
    try:
        step = "read an old run"
        if old_run is None:
            experiments = [
                experiment.experiment_id for experiment in client.search_experiments(max_results=1000)
            ]
            newest = client.search_runs(experiments, max_results=1, order_by=["attributes.start_time DESC"])
            old_run = newest[0].info.run_id if newest else None
        if old_run:
            client.get_run(old_run)
            client.list_artifacts(old_run)
        step = "create an experiment"
        experiment = client.create_experiment(f"mlflow-stacks smoke test {uuid.uuid4().hex[:12]}")
        try:
            step = "log a run"
            run = client.create_run(experiment).info.run_id
            client.log_param(run, "smoke", "test")
            for number in range(3):
                client.log_metric(run, "number", number, step=number)
            step = "log an artifact"
            client.log_text(run, run, "smoke.txt")
            client.set_terminated(run)
            step = "read the run back"
            data = client.get_run(run).data
            history = [metric.value for metric in client.get_metric_history(run, "number")]
            _expect((data.params, sorted(history)), ({"smoke": "test"}, [0.0, 1.0, 2.0]))
            step = "read the artifact back"
            with TemporaryDirectory() as folder:
                _expect(Path(client.download_artifacts(run, "smoke.txt", folder)).read_text(), run)
        finally:
            client.delete_experiment(experiment)
    except (MlflowException, OSError, _UnexpectedError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"the smoke test of {url} failed: cannot {step}: {reason[0]}") from None
    return {"url": url, "old_run": old_run, "seconds": round(time.monotonic() - begun, 1)}


class _UnexpectedError(Exception):
    """What was read is not what was written."""


def _expect(read: object, written: object) -> None:
    if read != written:
        raise _UnexpectedError(f"wrote {written!r} and read {read!r}")


@verb("smoke", "", "Use a tracking server once.", module=("services.smoke",))
class Smoke(Request):
    """The last step of an upgrade."""

    url: str = flag(Flag("url", values.text("URL", "an address"), "address of the server", required=True))
    old_run: str = flag(
        Flag("old-run", values.text("ID", "the id of a run"), "a run that must be readable; else the newest")
    )
    json: bool = flag(flags.JSON)


def main(words: Sequence[str]) -> None:
    """Do what a command line asks for; see `smoke_test`."""
    given = arguments.read(words, Smoke)
    answer = smoke_test(given.url, given.old_run or None)
    if given.json:
        emit_json(answer)
    else:
        note(f"{answer['url']} works: wrote and read back in {answer['seconds']} s")


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
