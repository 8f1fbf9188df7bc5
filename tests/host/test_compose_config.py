"""Docker Compose itself accepts what is rendered for every stack, and shows no secret in it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from develop.scratch.stack import StackUnderTest
from stacks import catalogue
from stacks.engines.programs import compose_command

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "settings",
    [(), ("gateway=standalone",), ("object_store=rustfs",), ("object_store_url=http://192.0.2.1:5558",)],
)
@pytest.mark.parametrize("stack", catalogue.names())
def test_compose_accepts_what_is_rendered(stack: str, settings: tuple[str, ...], tmp_path: Path) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    subject = StackUnderTest(stack, "compose", tmp_path / "state")
    subject.invoke("render", f"--stack={stack}", "--engine=compose", f"--output={tmp_path}", *words)
    command = [*compose_command(), "--file", str(tmp_path / "compose.yaml"), "config", "--quiet"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
