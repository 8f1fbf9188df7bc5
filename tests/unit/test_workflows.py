"""What a forge and pre-commit run is there: files, tests, tasks and modules; and what has to pass is ``.ci/run``."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from verbs import VERBS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.y*ml"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
TASKS = {name for name, request in VERBS.items() if request.verb.group}
OURS = re.compile(r"(?:/work/)?((?:tests|\.ci|images|develop)/[\w./-]+|[\w-]+\.(?:txt|toml|py))")


def lines(workflow: Path) -> list[str]:
    """What the steps of all jobs run, a step each."""
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def words(line: str) -> Iterator[str]:
    """The words of a line of shell; those of what it gives to another shell as well."""
    for word in shlex.split(line):
        yield from words(word) if " " in word else [word]


def missing(line: str) -> list[str]:
    """The files, tasks and modules that a line names and that are not there."""
    said = list(words(line))
    wrong = []
    for word, after in zip(said, [*said[1:], ""], strict=True):
        path = OURS.fullmatch(word)
        if path and not (ROOT / path[1]).exists():
            wrong.append(path[1])
        if word.endswith("bin/invoke") and after not in TASKS:
            wrong.append(f"task {after}")
        if word == "-m" and after != "venv" and importlib.util.find_spec(after) is None:
            wrong.append(f"module {after}")
    return wrong


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_has_to_pass_and_names_only_what_is_there(workflow: Path) -> None:
    said = lines(workflow)
    assert any("/.ci/run" in line for line in said)
    assert [problem for line in said for problem in missing(line)] == []


def test_a_commit_is_checked_by_what_is_there() -> None:
    assert [problem for hook in HOOKS for problem in missing(hook["entry"])] == []


def test_what_runs_first_is_executable() -> None:
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("bash -c 'git clone /src /work && bash /work/.ci/walk'", ".ci/walk"),
        (".venv/bin/python -m pytest tests/docker/test_nothing.py", "tests/docker/test_nothing.py"),
        (".venv/bin/pip install --requirement requirements-tests.txt", "requirements-tests.txt"),
        (".venv/bin/invoke test-units", "task test-units"),
        (".venv/bin/python -m pitest", "module pitest"),
    ],
)
def test_what_is_not_there_is_found(line: str, problem: str) -> None:
    assert missing(line) == [problem]
