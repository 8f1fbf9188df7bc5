"""A small file system of its own, which root can mount, what fills it, and what a server took before that."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import mlflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from develop.scratch.stack import StackUnderTest


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Mount one on a new folder for as long as the block lasts; `size` as tmpfs(5) writes it: ``60m``."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take the last byte of a file system; returns the file that holds it."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as filler:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while True:
                    filler.write(b"x" * size)
    return path


def logged(stack: StackUnderTest, folder: Path) -> list[str]:
    """Runs that the server took, each with an artifact; the first two are deleted again."""
    client = mlflow.MlflowClient(stack.url)
    artifact = folder / "a.bin"
    artifact.write_bytes(os.urandom(100_000))
    runs = [client.create_run("0").info.run_id for _ in range(4)]
    for run in runs:
        client.log_param(run, "name", run)
        client.log_artifact(run, str(artifact))
    for run in runs[:2]:
        client.delete_run(run)
    return runs


def there(stack: StackUnderTest, run: str, folder: Path) -> bool:
    """Whether a run is there with all that was logged."""
    client = mlflow.MlflowClient(stack.url)
    client.download_artifacts(run, "a.bin", str(folder))
    return client.get_run(run).data.params == {"name": run} and (folder / "a.bin").stat().st_size == 100_000
