"""docs/adding-a-service.md is followed to the letter, in a copy of the checkout: what it says is all it takes."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from develop.scratch.ports import free_port
from develop.scratch.stack import StackUnderTest
from stacks.definition.settings import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (ROOT / "docs" / "adding-a-service.md").read_text()
STEP = r"^(Write|In) `([^`]+)`(?:, after `([^`]+)`)?:\n\n```\w+\n(.*?)^```$"
STEPS = re.findall(STEP, TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^\$ invoke (.+)$", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout in which every step was done."""
    folder = tmp_path_factory.mktemp("checkout")
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    for verb, name, anchor, block in STEPS:
        path = folder / name
        if verb == "Write":
            assert not path.exists()
            path.write_text(block)
        else:
            [line] = [line for line in path.read_text().splitlines(keepends=True) if anchor in line]
            path.write_text(path.read_text().replace(line, line + block))
    return folder


@pytest.fixture(scope="module")
def stack(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> StackUnderTest:
    place = tmp_path_factory.mktemp("state")
    return StackUnderTest("hello", "host", place, {"hello_port": free_port()}, root=checkout)


def test_the_page_has_all_its_steps() -> None:
    assert len(STEPS) == TEXT.count("\nWrite `") + TEXT.count("\nIn `") == 7
    assert len(COMMANDS) == 6


def test_its_commands_do_what_they_say(stack: StackUnderTest) -> None:
    url = f"http://127.0.0.1:{stack.settings['hello_port']}/"
    greetings = []
    for command in COMMANDS:
        verb, *words = command.split()
        answer = stack.invoke(verb, *words)
        if verb == "render":
            service: dict[str, Any] = yaml.safe_load(answer.stdout)["services"]["hello"]
            assert service["secrets"] == ["hello-word"]
            assert service["read_only"] is True
        if verb in {"up", "secrets-rotate"}:
            greetings.append(requests.get(url, timeout=5).text)
    assert all(re.fullmatch("hello, [0-9a-f]{16}", greeting) for greeting in greetings)
    assert len(set(greetings)) == 2
    assert not (stack.state / "stack.json").exists()


def test_the_tests_of_settings_and_rendering_take_it(checkout: Path) -> None:
    words = ["-q", "-p", "no:cacheprovider", "tests/unit/test_settings.py", "tests/unit/test_render.py"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *words,
        "--deselect=tests/unit/test_render.py::test_every_stack",
    ]
    answer = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stdout
