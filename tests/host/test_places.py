"""Where things lie may change: a checkout is moved, copied, or its TMPDIR is another; a stack can always be stopped."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import psutil
import pytest

from develop.scratch.ports import free_port
from develop.scratch.stack import StackUnderTest
from stacks.definition.settings import ROOT
from tests.support import story

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = "a folder whose path is longer than the one of a socket may be, which is about a hundred bytes"


def move(stack: StackUnderTest, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    stack.root.rename(to)
    stack.root, stack.state_dir = to, to / ".stacks"


def supervisord(stack: StackUnderTest) -> psutil.Process:
    return psutil.Process(int((stack.state / "supervisord.pid").read_text()))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    checkout = tmp_path_factory.mktemp("places") / LONG
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    subject = StackUnderTest("local", "host", checkout / ".stacks", {"port": free_port()}, checkout)
    subject.up()
    yield subject
    subject.down("--volumes", "--yes")


def test_another_tmpdir_finds_the_stack(
    stack: StackUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert stack.service("mlflow")["health"] == "healthy"


def test_a_checkout_that_is_moved_while_it_runs_keeps_its_identity_and_its_data(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    told = story.tell(stack.url, tmp_path, megabytes=1)
    before, project = supervisord(stack), stack.status()["project"]
    move(stack, stack.root.parent / "moved")
    assert stack.status()["project"] == project
    assert stack.up()["project"] == project
    assert not before.is_running()
    story.check(stack.url, told, tmp_path)


def test_a_copy_beside_it_is_no_second_stack_of_the_same_identity(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    copy = StackUnderTest("local", "host", tmp_path / "copy", {"port": free_port()}, stack.root)
    shutil.copytree(stack.state_dir, copy.state_dir, ignore=shutil.ignore_patterns("*.sock"))
    refused = copy.invoke("up", "--engine=host", expect=1).stderr
    assert f"{copy.state} is a copy of {stack.state}" in refused
    assert stack.service("mlflow")["health"] == "healthy"


def test_a_stack_whose_socket_is_gone_can_be_seen_stopped_and_started(stack: StackUnderTest) -> None:
    (stack.state / "supervisord.sock").unlink()
    assert "runs and does not answer" in stack.invoke("status", expect=1).stderr
    running = supervisord(stack)
    stack.down()
    assert not running.is_running()


def test_a_checkout_that_is_moved_while_it_runs_can_be_stopped(stack: StackUnderTest) -> None:
    stack.up()
    running = supervisord(stack)
    family = [running, *running.children(recursive=True)]
    move(stack, stack.root.parent / "once more")
    stack.down()
    assert not any(process.is_running() for process in family)
