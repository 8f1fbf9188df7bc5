"""Hashed locks of other MLflow versions, and uv, which resolves and installs them.

`develop.lock` renews the repository's own locks. The index is the one this machine is configured for; its
address does not get into a lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.version import Version

from console import UserError, note
from files import write_atomically
from images import index

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "images" / "mlflow"
LOWEST_PYTHON = "3.11"  # the oldest a base made from packages may carry (Debian 12)
# What an older MLflow does not say of its requirements: that it does not import with newer ones, or that a part of it
# which a stack uses needs one more. Each with the first MLflow that needs it, and the first that does no more.
LIMITS = (
    ("sqlalchemy<2.1", Version("0"), Version("3.15")),
    (
        "aiohttp<4",
        Version("3.3"),
        Version("3.11"),
    ),  # both gateways call providers with it (mlflow's extra "gateway")
    ("huey>=2.5,<3", Version("3.5"), Version("3.6")),  # background jobs (mlflow's extra "jobs")
    ("uv", Version("3.6"), Version("3.9")),  # background jobs look for it on the PATH
)


COMPILE = (
    *("pip", "compile", "--quiet", "--universal", "--python-version", LOWEST_PYTHON),
    *("--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate"),
)


def for_version(version: str, folder: Path, *, local: bool) -> Path:
    """The lock of the MLflow image with another MLflow; kept until the image asks for something else.

    Everything else has the version of the repository's own lock where that MLflow allows it, and what is renewed keeps
    the versions that it had. Where it cannot be renewed (no network), the lock that is there goes on.

    Args:
        version: of MLflow, such as ``3.15.1``.
        folder: where it is kept as ``<version>.txt``.
        local: it is for this machine, which sees packages on its disk, not for a container.

    Raises:
        UserError: the index has no such version, or does not answer.
    """
    lock = folder / f"{version}.txt"
    pinned = (FOLDER / "requirements.in").read_text()
    asked = re.sub(r"^mlflow==.*$", f"mlflow=={version}", pinned, flags=re.MULTILINE)
    source = "\n".join([asked, *limits(version), ""])
    excludes = FOLDER / "excludes.txt"
    mark = f"# of {hashlib.sha256((source + excludes.read_text()).encode()).hexdigest()}\n"
    before = lock.read_text() if lock.exists() else ""
    if before.startswith(mark):
        return lock
    with tempfile.TemporaryDirectory() as work:
        wanted, target = Path(work, "requirements.in"), Path(work, "requirements.txt")
        wanted.write_text(source)
        target.write_text(
            before or (FOLDER / "requirements.txt").read_text()
        )  # uv keeps its versions if it can
        flags = ["--excludes", str(excludes), "--output-file", str(target), str(wanted)]
        answer = uv(folder, *COMPILE, *flags, local=local)
        if answer.returncode == 0:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(lock, (mark + target.read_text()).encode())
            return lock
    if before:
        note(f"the lock of MLflow {version} goes on as it was: {' '.join(answer.stderr.split())[-200:]}")
        return lock
    if re.search(rf"no version of mlflow(-\w+)?=={re.escape(version)}", " ".join(answer.stderr.split())):
        raise UserError(
            f"this machine's package index has no MLflow {version} that can be installed",
            "what it has: python -m pip index versions mlflow",
        )
    raise UserError(f"cannot resolve what MLflow {version} needs", *answer.stderr.strip().splitlines()[-8:])


def limits(version: str) -> tuple[str, ...]:
    """The requirements beside its own that a version of MLflow needs."""
    return tuple(limit for limit, since, until in LIMITS if since <= Version(version) < until)


def uv(
    folder: Path, *arguments: str, local: bool = True, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run uv with the index that pip or uv on this machine asks; this machine's own, or one that pip installs.

    Args:
        folder: where uv is kept if it has to be installed.
        arguments: of uv.
        local: ask for packages on this machine's disk too.
        cwd: folder to run it in, by default this process's own.

    Raises:
        UserError: there is no uv, and pip cannot install it.
    """
    variables = {**os.environ, **index.configured(local=local).variables()}
    command = [_uv(folder), *arguments]
    return subprocess.run(command, env=variables, cwd=cwd, capture_output=True, text=True, check=False)


def _uv(folder: Path) -> str:
    beside, own = Path(sys.executable).with_name("uv"), folder / "uv" / "bin" / "uv"
    known = str(beside) if beside.exists() else shutil.which("uv")
    if known or own.exists():
        return known or str(own)
    note("fetching uv, the installer")
    work = folder / "uv.partial"
    shutil.rmtree(work, ignore_errors=True)
    flags = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "install", *flags, f"--target={work}"]
    command += ["--requirement", str(FOLDER / "uv.txt")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise UserError(
            "cannot fetch uv, which makes environments of other MLflow versions",
            *answer.stderr.strip().splitlines()[-5:],
            "install it: python -m pip install uv",
        )
    work.rename(own.parent.parent)
    return str(own)
