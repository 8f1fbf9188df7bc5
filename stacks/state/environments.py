"""Which MLflow a stack runs, and the environment or the lock that another version than this checkout's needs.

A stack goes on with the version it was started with, whatever this checkout pins by now, until `invoke upgrade`. The
host engine runs the checkout's own environment where its version is that one; each further version has an environment
of its own in the state directory. The Compose engine builds the image from the same lock.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from packaging.version import Version

from console import UserError, note
from files import write_atomically
from images import catalogue
from server.upstream import FEATURES
from stacks.definition.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from stacks.definition.deployment import Deployment

FOLDER = "mlflow"  # in a stack's state directory


@functools.cache
def pinned() -> str:
    """The version that this checkout's lock pins."""
    return catalogue.image("mlflow").version


@functools.cache
def installed() -> str:
    """The version in the environment that runs this; empty where there is none."""
    try:
        return importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        return ""


def check(version: str, services: Collection[str]) -> None:
    """Hold that a stack with these services can run a version.

    Raises:
        UserError: it is not a version, or too old; says what to do instead.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", version):
        raise UserError(
            f"'{version}' is no version of MLflow", f"such as {pinned()}, which this checkout pins"
        )
    first = FEATURES["server"].since
    if Version(version) < Version(first):
        raise UserError(
            f"MLflow {version} is too old to run here",
            f"stacks run MLflow {first} and later",
            "the data of an older one: invoke backup --backend-store-uri=URI, then restore it into a stack",
        )
    for name in services:
        if Version(version) < Version(oldest := SERVICES[name].oldest_mlflow):
            raise UserError(
                f"MLflow {version} is too old for the service '{name}'",
                f"it works from {oldest} on",
                *SERVICES[name].instead,
            )


def interpreter(state: Path, version: str) -> str:
    """The interpreter that finds a version for a stack on the host engine."""
    return sys.executable if version == installed() else str(folder(state) / version / "bin" / "python")


def works(python: str, version: str) -> bool:
    """Whether an interpreter is there, starts, and finds a version; an upgrade of it may have left its packages."""
    code = "import importlib.metadata; print(importlib.metadata.version('mlflow'))"
    try:
        said = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return said.returncode == 0 and said.stdout.strip() == version


def require(deployment: Deployment) -> None:
    """Hold that the host engine can run a stack's version.

    Raises:
        UserError: its environment is gone, or does not work any more.
    """
    version, python = deployment.mlflow_version, deployment.mlflow_python
    if python != sys.executable and not works(python, version):
        raise UserError(
            f"the environment of stack '{deployment.name}' with MLflow {version} is gone, or does not work any more",
            f"it is {folder(deployment.state) / version}",
            f"make it anew: invoke up --stack={deployment.name}",
        )


def settle(deployment: Deployment) -> None:
    """Hold, before an `up`, that a stack starts with the version that the settings ask for, or goes on with its own.

    Raises:
        UserError: it runs another one, or cannot run that one.
    """
    runs, wanted = deployment.mlflow_version, deployment.settings.mlflow_version
    name = deployment.name
    if wanted not in {"", runs}:
        raise UserError(
            f"stack '{name}' runs MLflow {runs}, and the setting 'mlflow_version' asks for {wanted}",
            f"bring it there, with a backup first: invoke upgrade --to={wanted} --stack={name}",
            "or take the setting away",
        )
    check(runs, deployment.services)
    if not wanted and Version(runs) < Version(pinned()):
        note(
            f"stack '{name}' stays on MLflow {runs}; this checkout brings {pinned()}: "
            f"invoke upgrade --to={pinned()} --stack={name}"
        )


def folder(state: Path) -> Path:
    """Where a stack keeps locks and environments of its versions."""
    return state / FOLDER


def lock(deployment: Deployment, *, local: bool = False) -> Path | None:
    """The lock that a stack's version is built from; None stands for the checkout's own.

    Args:
        deployment: whose version.
        local: it is for this machine, not for a container.

    Raises:
        UserError: see `images.lock.for_version`.
    """
    if deployment.mlflow_version == pinned():
        return None
    from images.lock import for_version

    return for_version(deployment.mlflow_version, folder(deployment.state), local=local)


def ensure_environment(deployment: Deployment) -> None:
    """Make the environment that the host engine runs a stack's version in, whole or not at all.

    One that an earlier version of this project made is given what it lacks; one that does not work is made anew.

    Raises:
        UserError: it cannot be resolved or installed.
    """
    version = deployment.mlflow_version
    target = folder(deployment.state) / version
    if version == installed():
        return
    from images.lock import FOLDER as IMAGE

    wanted = lock(deployment, local=True) or IMAGE / "requirements.txt"
    mark = target / wanted.name  # what is installed in it
    healthy = works(interpreter(deployment.state, version), version)
    if healthy and mark.exists() and mark.read_bytes() == wanted.read_bytes():
        return
    started = time.monotonic()
    note(f"{'renewing the' if target.exists() else 'making an'} environment with MLflow {version}")
    if not healthy:
        shutil.rmtree(target, ignore_errors=True)
    install(version, wanted, target)
    write_atomically(mark, wanted.read_bytes())
    note(f"made {target} in {time.monotonic() - started:.0f} s")


def install(version: str, wanted: Path, target: Path, *, bytecode: bool = True) -> None:
    """Make an environment, whole or not at all; one that is there is given what it lacks.

    Args:
        version: of MLflow, for the message.
        wanted: the lock that it is made from.
        target: its folder.
        bytecode: compile it, for it is started more than once.

    Raises:
        UserError: it cannot be installed.
    """
    from images.lock import uv

    work = target.with_name(f"{target.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    there = (target / "bin" / "python").exists()
    flags = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    flags += ["--compile-bytecode"] if bytecode else []
    where = ["--python", str(target if there else work)]
    for command in (
        *([] if there else [["venv", "--quiet", "--relocatable", "--python", sys.executable, str(work)]]),
        ["pip", "install", "--quiet", *where, *flags, "--requirement", str(wanted)],
    ):
        answer = uv(target.parent, *command)
        if answer.returncode != 0:
            shutil.rmtree(work, ignore_errors=True)
            raise UserError(
                f"cannot install MLflow {version}",
                *answer.stderr.strip().splitlines()[-8:],
                f"is there room? df -h {target.parent}",
            )
    if not there:
        work.rename(target)


def others(deployment: Deployment, keep: Collection[str] = ()) -> list[Path]:
    """The environments and locks of versions that a stack has left behind, and those that a kill left half made.

    Args:
        deployment: as its last `up` left it.
        keep: versions that it may need beside the one that it runs.
    """
    kept = {deployment.mlflow_version, *keep}
    return [
        path
        for path in sorted(folder(deployment.state).glob("*.*.*"))
        if path.name.removesuffix(".txt").removesuffix(".yaml") not in kept
    ]


def remove_others(deployment: Deployment, keep: Collection[str]) -> None:
    """Remove the environments and locks of versions that a stack has left behind; see `others`."""
    for path in others(deployment, keep):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
