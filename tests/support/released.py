"""Stacks as released versions of this project left them: put in place as they lay on the machine that made them.

`tests/released` holds one archive for each: the state directory, on Compose the volumes, root's PostgreSQL folder, a
backup set, and what a client wrote (`told.json`). `tests/released/make.py` made them in a checkout of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest
from tests.support import story
from tests.support.upgrades import all_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[1] / "released"
PLACE = Path("/var/tmp/mlflow-stacks-released")  # noqa: S108 (a project's name came from its path)
SYSTEM = Path("/var/lib/mlflow-stacks")
sys.modules["tests.story"] = story  # the module's name in the models that 4a324ba's client pickled


@dataclass(frozen=True)
class Released:
    """A stack of a released version, down.

    Attributes:
        stack: for the commands of today.
        told: what a client wrote in its day.
        doomed: a run that was deleted, and not yet cleaned up.
        backup: the set that its own version made of it.
    """

    stack: StackUnderTest
    told: story.Told
    doomed: str
    backup: Path

    def check(self, folder: Path) -> None:
        """All that was written reads back, and what was deleted is still in the trash."""
        story.check(self.stack.url, self.told, folder)
        client = mlflow.MlflowClient(self.stack.url)
        assert client.get_run(self.doomed).info.lifecycle_stage == "deleted"

    def is_taken_over(self, folder: Path) -> None:
        """It comes up, is backed up, takes back the set of its day and that of today, and is cleaned up."""
        stack, flag = self.stack, f"--stack={self.stack.name}"
        stack.up()
        self.check(folder)

        backup = json.loads(stack.invoke("backup", flag, f"--to={folder / 'sets'}", "--json").stdout)
        later = story.some_run(stack.url).info.run_id
        for path in (str(self.backup), backup["path"]):
            stack.invoke("restore", flag, f"--backup={path}", "--yes")
            self.check(folder)
            assert later not in all_runs(stack)

        report = json.loads(stack.invoke("cleanup", flag, "--yes", "--json").stdout)
        assert report["deleted"]["runs"] == 1
        story.check(stack.url, self.told, folder)


@contextmanager
def released(name: str) -> Iterator[Released]:
    """Put one of `tests/released` in place, and take away what became of it.

    Args:
        name: ``COMMIT-ENGINE-STACK[-VERSION]``.
    """
    _, engine, stack_name, *_ = name.split("-")
    where = PLACE / name
    shutil.rmtree(where, ignore_errors=True)
    PLACE.mkdir(exist_ok=True)
    archive = FOLDER / f"{name}.tar.xz"
    subprocess.run(["tar", "-C", str(PLACE), "--numeric-owner", "-xpJf", str(archive)], check=True)
    state = where / "state"
    project = json.loads((state / stack_name / "stack.json").read_text())["project"]
    for volume in (where / "volumes").iterdir():
        _fill_volume(project, volume)
    if (where / "system").exists():
        SYSTEM.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.rmtree(SYSTEM / project, ignore_errors=True)
        subprocess.run(["cp", "-a", str(where / "system"), str(SYSTEM / project)], check=True)
    written = json.loads((where / "told.json").read_text())
    doomed = written.pop("doomed")
    written["metrics"] = tuple(tuple(pair) for pair in written["metrics"])
    settings = free_ports() | {"gateway_config": where / "gateway.yaml", "gateway_keys": where / "keys"}
    subject = StackUnderTest(stack_name, engine, state, settings)
    [backup] = (where / "sets").glob("2*")
    try:
        yield Released(subject, story.Told(**written), doomed, backup)
    finally:
        subject.down("--volumes", "--yes")
        shutil.rmtree(where)


def _fill_volume(project: str, content: Path) -> None:
    """Make a volume as Compose would have, and put what it held into it."""
    name = f"{project}_{content.name}"
    labels = (f"com.docker.compose.project={project}", f"com.docker.compose.volume={content.name}")
    subprocess.run(["docker", "volume", "rm", "-f", name], check=True, capture_output=True)
    flags = [word for label in labels for word in ("--label", label)]
    subprocess.run(["docker", "volume", "create", *flags, name], check=True, capture_output=True)
    inspect = ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", name]
    mount = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["cp", "-aT", str(content), mount], check=True)
