"""The code of this checkout: what git keeps or would, so that no backup set with a model's code in it counts."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def code() -> tuple[Path, ...]:
    """Every Python file, in order."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(path for name in sorted(set(names.split("\0"))) if (path := ROOT / name).is_file())
