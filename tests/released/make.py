"""Make what `tests/released` keeps of a released version: ``python tests/released/make.py [ENGINE,STACK[,MLFLOW]]...``.

Run it in a checkout of that version, as root. Each archive holds the state directory (and, on Compose, the volumes) as
`down` leaves it, root's PostgreSQL folder, a backup set, and what a client wrote. All of it lies at `PLACE`, for a
project's name comes from its path. `tests/support/released.py` puts it back there.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import mlflow

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest
from tests.support import story
from tests.support.released import FOLDER, PLACE, SYSTEM

EVERY = ("host,local", "host,local,3.15.1", "host,quickstart", "compose,local", "compose,quickstart")
GATEWAY = """endpoints:
  - name: chat
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: gpt-4o-mini
      config:
        openai_api_key: $OPENAI_API_KEY
        openai_api_base: http://127.0.0.1:9/v1
"""


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def make(engine: str, name: str, version: str = "") -> None:
    """Bring a stack up, use it, back it up, take it down, and pack what is left."""
    title = "-".join(filter(None, (output("git", "rev-parse", "--short", "HEAD"), engine, name, version)))
    where = PLACE / title
    (where / "keys").mkdir(parents=True)
    (where / "keys" / "OPENAI_API_KEY").write_text("sk-released")
    (where / "gateway.yaml").write_text(GATEWAY)
    settings = free_ports() | {"gateway_config": where / "gateway.yaml", "gateway_keys": where / "keys"}
    stack = StackUnderTest(name, engine, where / "state", settings)
    stack.up(*(["--set", f"mlflow_version={version}"] if version else []))
    told = dataclasses.asdict(story.tell(stack.url, where, megabytes=0))
    told["doomed"] = story.some_run(stack.url).info.run_id
    mlflow.MlflowClient(stack.url).delete_run(told["doomed"])
    (where / "told.json").write_text(json.dumps(told, indent=1))
    with tempfile.TemporaryDirectory() as sets:  # a set that lies below the state would be backed up itself
        stack.invoke("backup", f"--stack={name}", f"--to={sets}")
        stack.down()
        shutil.copytree(sets, where / "sets", symlinks=True)
    if version:
        shutil.rmtree(stack.state / "mlflow" / version)
    for log in stack.state.rglob("*.log*"):
        log.unlink()
    project = json.loads((stack.state / "stack.json").read_text())["project"]
    (where / "volumes").mkdir()
    label = f"label=com.docker.compose.project={project}"
    for volume in output("docker", "volume", "ls", "-q", "--filter", label).split() * (engine == "compose"):
        mount = output("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume)
        subprocess.run(
            ["cp", "-a", mount, str(where / "volumes" / volume.removeprefix(f"{project}_"))], check=True
        )
    if (SYSTEM / project).exists():
        subprocess.run(["cp", "-a", str(SYSTEM / project), str(where / "system")], check=True)
    archive = FOLDER / f"{title}.tar.xz"
    pack = ["tar", "-C", str(PLACE), "--numeric-owner", "--sort=name", "-I", "xz -9e", "-cf", str(archive)]
    subprocess.run([*pack, title], check=True)
    stack.down("--volumes", "--yes")
    shutil.rmtree(where)


if __name__ == "__main__":
    for words in sys.argv[1:] or EVERY:
        make(*words.split(","))
