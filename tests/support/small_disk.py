"""A small file system of its own, which root can mount, and what fills it."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
