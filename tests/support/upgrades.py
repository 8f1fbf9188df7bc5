"""What `invoke upgrade` must do on every stack and engine: the story that `tests/host` and `tests/docker` tell."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import mlflow

from develop.scratch.stack import wait_until
from stacks.state.environments import pinned
from tests.support import answers, story

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from develop.scratch.stack import StackUnderTest

OLD = "3.15.1"
NEW = pinned()


def upgrade(
    stack: StackUnderTest, version: str, sets: Path, *words: str, expect: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run it with an answer to its question."""
    name = f"--stack={stack.name}"
    return stack.invoke(
        "upgrade", f"--to={version}", name, f"--backups={sets}", "--yes", *words, expect=expect
    )


def there_and_back(stack: StackUnderTest, folder: Path) -> tuple[str, str]:
    """From 3.15.1 to this checkout's version and back: a client reads all it should, value by value.

    Returns:
        A run of the time in between, and the backup set that keeps it.
    """
    sets, told = folder / "sets", story.tell(stack.url, folder, megabytes=1)
    assert stack.service("mlflow")["version"] == OLD

    answer = answers.read("upgrade", upgrade(stack, NEW, sets, "--json").stdout)
    assert answer["action"] == "migrate"
    assert (answer["from"], answer["to"]) == (OLD, NEW)
    assert answer["smoke"]["old_run"] in {told.parent, told.child}
    runs(stack, NEW, told, folder)
    later = story.some_run(stack.url).info.run_id

    upgraded = upgrade(stack, OLD, sets, "--json")
    answer = answers.read("upgrade", upgraded.stdout)
    assert answer["action"] == "restore"
    assert "runs: " in upgraded.stderr
    assert "fewer" in upgraded.stderr
    runs(stack, OLD, told, folder)
    assert later not in all_runs(stack)
    return later, answer["backup"]


def runs(stack: StackUnderTest, version: str, told: story.Told, folder: Path) -> None:
    """The stack is healthy with that version, its data as it was told, and nothing of the work is left."""
    assert {service["health"] for service in stack.status()["services"]} <= {"healthy", "done"}
    assert stack.service("mlflow")["version"] == version
    assert stack.status()["schema"]["state"] == "current"
    assert not (stack.state / "upgrade.json").exists()
    story.check(stack.url, told, folder)
    assert story.some_run(stack.url).data.metrics == {"x": 1.0}


def all_runs(stack: StackUnderTest) -> set[str]:
    client = mlflow.MlflowClient(stack.url)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_id for run in client.search_runs(experiments)}


def lend(owner: StackUnderTest, state: Path) -> None:
    """Let another stack use the environment of 3.15.1 that one has made; it takes a minute to make."""
    (state / "mlflow").mkdir(parents=True, exist_ok=True)
    for name in (OLD, f"{OLD}.txt"):
        (state / "mlflow" / name).unlink(missing_ok=True)
        (state / "mlflow" / name).symlink_to(owner.state / "mlflow" / name)


def kill_at(stack: StackUnderTest, version: str, sets: Path, step: str) -> None:
    """Send SIGKILL to an upgrade as soon as it has begun a step."""
    name = f"--stack={stack.name}"
    process = stack.start("upgrade", f"--to={version}", name, f"--backups={sets}", "--yes")
    wait_until(lambda: journal(stack).get("step") == step, lambda: f"{process.poll()} {journal(stack)}")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def journal(stack: StackUnderTest) -> dict[str, Any]:
    path = stack.state / "upgrade.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}
