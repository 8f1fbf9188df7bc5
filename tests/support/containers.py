"""The built images and containers of them, by the Docker command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import yaml

from images import build, engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from develop.scratch.stack import StackUnderTest

PATIENCE = 180  # seconds; the machine is shared
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init")


def docker(*argv: str, check: bool = True) -> str:
    """Run docker; what it printed on standard output, without the last line break."""
    answer = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
    if check and answer.returncode != 0:
        pytest.fail(f"docker {' '.join(argv)}\n{answer.stdout}{answer.stderr}")
    return answer.stdout.rstrip("\n")


def built(name: str) -> str:
    """The built image of this checkout, official ones left aside; built when it is not here."""
    reference = build.reference(name)
    if engine.inspect(reference) is None:
        build.build([name], from_packages=shutil.which("mmdebstrap") is not None)
    return reference


def volume(stack: StackUnderTest, name: str, *options: str) -> str:
    """Make a volume of a stack that was never up, as Compose would have, but with options; its name for Docker.

    Args:
        stack: on Compose.
        name: of the volume, as the stack's Compose file has it.
        options: of Docker's driver `local`, such as ``type=tmpfs``.
    """
    rendered = stack.invoke("render", f"--stack={stack.name}", "--engine=compose").stdout
    project = yaml.safe_load(rendered)["name"]
    labels = {"com.docker.compose.project": project, "com.docker.compose.volume": name}
    flags = [word for item in labels.items() for word in ("--label", "=".join(item))]
    flags += [word for option in options for word in ("--opt", option)]
    return docker("volume", "create", *flags, f"{project}_{name}")


class Container:
    """A running container."""

    def __init__(self, identity: str) -> None:
        self.id = identity

    def succeeds(self, *argv: str) -> bool:
        """Whether a command inside it exits with 0."""
        answer = subprocess.run(["docker", "exec", self.id, *argv], capture_output=True, check=False)
        return answer.returncode == 0

    def says(self, *argv: str) -> str:
        """What a command inside it prints."""
        return docker("exec", self.id, *argv)

    def state(self) -> dict[str, Any]:
        """What the engine says of it."""
        state: dict[str, Any] = json.loads(docker("inspect", self.id))[0]["State"]
        return state

    def logs(self) -> str:
        """What it has said, on both of its outputs."""
        command = ["docker", "logs", self.id]
        answer = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        return answer.stdout

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for `condition`, or fail with the container's state and last log lines."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline or not self.state()["Running"]:
                pytest.fail(f"{self.state()}\n{self.logs()[-4000:]}")
            time.sleep(0.3)

    def wait_healthy(self) -> None:
        """Wait until the image's own health check passes."""
        self.wait(lambda: self.state()["Health"]["Status"] == "healthy")

    def stop(self) -> None:
        """Stop and remove it; its named volumes stay."""
        docker("stop", "--time=30", self.id)
        docker("rm", self.id)


class Runner(Protocol):
    """Starts a container with the arguments of ``docker run``."""

    def __call__(self, *argv: str) -> Container:
        """Start it in the background."""
