"""Every command of the README is run, in its order, as a newcomer without Docker would."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_port
from develop.scratch.stack import StackUnderTest
from stacks.definition.settings import PREFIX, ROOT
from tests.support import laptop, story

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ") for block in BLOCKS for line in block.splitlines() if line.startswith("$ ")
]
FIRST, LAST = (number for number, command in enumerate(COMMANDS) if "../moving" in command)
MOVE = COMMANDS[FIRST : LAST + 1]
SET_UP, TEST, *VERBS = COMMANDS[:FIRST] + COMMANDS[LAST + 1 :]

# These are steps of `.ci/run`, each word for word.
IN_CI = ("invoke lint", "invoke build --from-packages")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout that commands may write into."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No Docker, a state directory and ports of its own."""
    ports = ("port", "gateway_port", "postgres_port", "object_store_port")
    return {
        **os.environ,
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        f"{PREFIX}STATE_DIR": str(tmp_path / "state"),
        **{f"{PREFIX}{name.upper()}": str(free_port()) for name in ports},
    }


def type_in(command: str, clone: Path, environment: dict[str, str]) -> None:
    first, *words = shlex.split(command)
    assert first == "invoke", f"the README types something else than invoke: {command}"
    answer = subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, f"{command}\n{answer.stdout}\n{answer.stderr}"


def test_the_first_command_ends_with_a_server_that_takes_a_run(
    tmp_path: Path, clone: Path, environment: dict[str, str]
) -> None:
    answer = subprocess.run(
        ["bash", "-c", SET_UP], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    stack = StackUnderTest("local", "host", tmp_path / "state", {"port": environment[f"{PREFIX}PORT"]}, clone)
    try:
        assert f"mlflow     {stack.url}" in answer.stdout
        with urllib.request.urlopen(stack.url) as page:
            assert b"MLflow" in page.read()
        assert story.some_run(stack.url).data.metrics == {"x": 1.0}
    finally:
        down = [str(clone / ".venv" / "bin" / "invoke"), "down", "--volumes", "--yes"]
        subprocess.run(down, cwd=clone, env=environment, check=True)


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert f"{TEST} --require-docker" in script
    for command in IN_CI:
        assert f".venv/bin/{command}" in script


def test_three_commands_bring_mlflow_2_9_to_the_quickstart(
    environment: dict[str, str], clone: Path, tmp_path: Path
) -> None:
    written = laptop.write(tmp_path)
    files = [tmp_path / "mlflow.db", *(tmp_path / "mlruns").rglob("weights")]
    before = {path: path.read_bytes() for path in files}
    stack = StackUnderTest(
        "quickstart", "host", tmp_path / "state", {"port": environment[f"{PREFIX}PORT"]}, clone
    )
    assert len(MOVE) == 3
    try:
        for command in MOVE:
            type_in(command, clone, environment)
        laptop.check(stack.url, written, tmp_path)
    finally:
        stack.down("--volumes", "--yes")
    assert {path: path.read_bytes() for path in before} == before


def test_every_other_command_does_what_it_says(
    environment: dict[str, str], clone: Path, tmp_path: Path
) -> None:
    ran = []
    try:
        for command in ["invoke up", *VERBS]:
            if command in IN_CI:
                continue
            type_in(command, clone, environment)
            ran.append(command)
    finally:
        for stack in sorted(path.parent.name for path in (tmp_path / "state").glob("*/stack.json")):
            StackUnderTest(stack, "host", tmp_path / "state").down("--volumes", "--yes")
    assert len(ran) > 10
