"""A stack under test: the real command line, in a state directory and on ports of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stacks.definition.settings import PREFIX, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 240.0  # seconds; a shared machine with two cores can be slow


@dataclass
class StackUnderTest:
    """One stack of one state directory, driven through ``invoke`` as a user would.

    Attributes:
        name: the stack.
        engine: ``host`` or ``compose``.
        state_dir: where it keeps its state.
        settings: settings given through the environment.
        root: the checkout that `invoke` runs in.
        variables: of the environment, beside the settings.
    """

    name: str
    engine: str
    state_dir: Path
    settings: dict[str, object] = field(default_factory=dict)
    root: Path = ROOT
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings['port']}"

    @property
    def state(self) -> Path:
        return self.state_dir / self.name

    def environment(self) -> dict[str, str]:
        ours = {f"{PREFIX}{name.upper()}": str(value) for name, value in self.settings.items()}
        return {**os.environ, f"{PREFIX}STATE_DIR": str(self.state_dir), **ours, **self.variables}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "invoke", *words]

    def invoke(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run one task; a wrong exit code fails with all that it printed (None takes any)."""
        answer = subprocess.run(
            self.command(*words),
            cwd=self.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert expect in {None, answer.returncode}, (
            f"{words} ended with {answer.returncode}\n{answer.stdout}\n{answer.stderr}"
        )
        return answer

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start one task and leave it running, in a session of its own."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def up(self, *words: str) -> dict[str, Any]:
        answer = self.invoke(
            "up", f"--stack={self.name}", f"--engine={self.engine}", "--json", f"--timeout={PATIENCE}", *words
        )
        return dict(json.loads(answer.stdout))

    def status(self) -> dict[str, Any]:
        """What `status` says, of a stack that is well or not."""
        answer = self.invoke("status", f"--stack={self.name}", "--json", expect=None)
        assert answer.returncode in {0, 1}, answer.stderr
        return dict(json.loads(answer.stdout))

    def service(self, name: str) -> dict[str, Any]:
        return next(service for service in self.status()["services"] if service["name"] == name)

    def down(self, *words: str) -> None:
        self.invoke("down", f"--stack={self.name}", *words)

    def wait_healthy(self) -> None:
        wait_until(
            lambda: all(
                service.get("health") in {"healthy", "done"} for service in self.status()["services"]
            ),
            lambda: f"{self.status()}\n{self.invoke('logs', f'--stack={self.name}', '--tail=20').stdout}",
        )


def wait_until(condition: Callable[[], bool], state: Callable[[], str], *, seconds: float = PATIENCE) -> None:
    """Wait for a condition; when it does not come, fail with the state."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {state()}"
        time.sleep(0.2)
