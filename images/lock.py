"""Renew the hashed locks of the images: ``python -m images.lock [--upgrade]``.

Versions follow the repository's own requirements.txt, so that an image runs what the tests ran. The index is
the one this machine's uv is configured for; its address does not get into a lock.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOWEST_PYTHON = "3.11"  # the oldest a base made from packages may carry (Debian 12)


def compile_command(source: Path, *extra: str) -> list[str]:
    """The uv command that renews the lock of one requirements file.

    Args:
        source: an ``images/<name>/*.in`` file; its lock lies beside it with the suffix ``.txt``.
        extra: further flags of ``uv pip compile``.

    Returns:
        An argv list, to be run in the repository's root.
    """
    folder = source.parent
    excludes = folder / "excludes.txt"
    return [
        *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", LOWEST_PYTHON),
        *("--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate"),
        *("--constraints", "requirements.txt"),
        *(("--excludes", str(excludes.relative_to(ROOT))) if excludes.exists() else ()),
        *("--output-file", str(source.with_suffix(".txt").relative_to(ROOT))),
        *extra,
        str(source.relative_to(ROOT)),
    ]


def main() -> None:
    """Renew the lock of every ``images/*/*.in``."""
    parser = argparse.ArgumentParser(description="renew the hashed locks of the images")
    parser.add_argument("--upgrade", action="store_true", help="take newer versions where they are allowed")
    upgrade = ("--upgrade",) if parser.parse_args().upgrade else ()
    for source in sorted((ROOT / "images").glob("*/*.in")):
        subprocess.run(compile_command(source, *upgrade), cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
