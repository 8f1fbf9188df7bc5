"""An environment of another MLflow that was deleted, or broke with its interpreter, is told and made anew."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from console import UserError
from stacks.engines.host import HostEngine
from stacks.state import environments
from tests.support.deployments import deployment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stacks.definition.deployment import Deployment

VERSION = "3.15.1"
LOCK = "mlflow==3.15.1\n"


def says(python: Path, text: str, code: int = 0) -> None:
    """Make a program that answers as an interpreter would."""
    python.unlink(missing_ok=True)
    python.write_text(f"#!/bin/sh\necho {text}\nexit {code}\n")
    python.chmod(0o755)


def deleted(python: Path) -> None:
    python.unlink()


def without_its_interpreter(python: Path) -> None:
    deleted(python)
    python.symlink_to("/usr/bin/python-that-was-upgraded")


def without_its_packages(python: Path) -> None:
    deleted(python)
    python.symlink_to(sys.executable)


def of_another_version(python: Path) -> None:
    says(python, "3.15.0")


def that_fails(python: Path) -> None:
    says(python, VERSION, 1)


BROKEN = (deleted, without_its_interpreter, without_its_packages, of_another_version, that_fails)


@pytest.fixture
def stack(tmp_path: Path) -> Deployment:
    """A stack of another version, and its environment, which works."""
    python = tmp_path / "mlflow" / VERSION / "bin" / "python"
    python.parent.mkdir(parents=True)
    says(python, VERSION)
    (python.parents[1] / f"{VERSION}.txt").write_text(LOCK)
    (tmp_path / "mlflow" / f"{VERSION}.txt").write_text(LOCK)
    return replace(deployment("local", version=VERSION), state=tmp_path, mlflow_python=str(python))


@pytest.mark.parametrize("broken", BROKEN)
def test_what_works_on_the_data_says_that_it_is_gone(
    stack: Deployment, broken: Callable[[Path], None], tmp_path: Path
) -> None:
    environments.require(stack)
    broken(tmp_path / "mlflow" / VERSION / "bin" / "python")
    engine = HostEngine(stack)
    for asked in (
        lambda: engine.run(["-m", "backups"], {}),
        lambda: engine.capture(["-m", "services.stores"]),
    ):
        with pytest.raises(
            UserError, match=r"'local' with MLflow 3\.15\.1 is gone, or does not work"
        ) as answer:
            asked()
        assert f"it is {tmp_path}/mlflow/{VERSION}" in answer.value.hints
        assert "make it anew: invoke up --stack=local" in answer.value.hints
    assert engine.stores() == {}


@pytest.mark.parametrize("broken", BROKEN)
def test_up_makes_it_anew(
    stack: Deployment, broken: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def install(version: str, wanted: Path, target: Path) -> None:
        assert (version, wanted.read_text()) == (VERSION, LOCK)
        assert not target.exists()
        target.mkdir()
        made.append(target)

    monkeypatch.setattr(environments, "install", install)
    monkeypatch.setattr(environments, "lock", lambda *_, **__: tmp_path / "mlflow" / f"{VERSION}.txt")
    environments.ensure_environment(stack)
    assert made == []
    broken(tmp_path / "mlflow" / VERSION / "bin" / "python")
    environments.ensure_environment(stack)
    assert made == [tmp_path / "mlflow" / VERSION]
