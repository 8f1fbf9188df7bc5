"""Hashed locks of other MLflow versions, and uv, which resolves and installs them.

`develop.lock` renews the repository's own locks. The index is the one this machine is configured for; its
address does not get into a lock.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from console import UserError, note
from images import index

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "images" / "mlflow"
LOWEST_PYTHON = "3.11"  # the oldest a base made from packages may carry (Debian 12)
# What an older MLflow does not say of its requirements: that it does not import with newer ones, or that a part of it
# which a stack uses needs one more. Each with the first MLflow that needs it, and the first that does no more.
LIMITS = (
    ("sqlalchemy<2.1", (0,), (3, 15)),
    ("aiohttp<4", (3, 3), (3, 11)),  # both gateways call providers with it (mlflow's extra "gateway")
    ("huey>=2.5,<3", (3, 5), (3, 6)),  # background jobs (mlflow's extra "jobs")
    ("uv", (3, 6), (3, 9)),  # background jobs look for it on the PATH
)


COMPILE = (
    *("pip", "compile", "--quiet", "--universal", "--python-version", LOWEST_PYTHON),
    *("--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate"),
)


def for_version(version: str, folder: Path, *, local: bool) -> Path:
    """The lock of the MLflow image with another MLflow; resolved once, then kept.

    Everything else has the version of the repository's own lock where that MLflow allows it.

    Args:
        version: of MLflow, such as ``3.15.1``.
        folder: where it is kept as ``<version>.txt``.
        local: it is for this machine, which sees packages on its disk, not for a container.

    Raises:
        UserError: the index has no such version, or does not answer.
    """
    lock = folder / f"{version}.txt"
    if lock.exists():
        return lock
    work = folder / f"{version}.lock"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    pinned = (FOLDER / "requirements.in").read_text()
    wanted = re.sub(r"^mlflow==.*$", f"mlflow=={version}", pinned, flags=re.MULTILINE)
    (work / "requirements.in").write_text("\n".join([wanted, *limits(version), ""]))
    shutil.copy(FOLDER / "requirements.txt", work / "requirements.txt")  # uv keeps its versions if it can
    flags = ["--excludes", str(FOLDER / "excludes.txt"), "--output-file", str(work / "requirements.txt")]
    done = uv(folder, *COMPILE, *flags, str(work / "requirements.in"), local=local)
    if done.returncode != 0:
        shutil.rmtree(work)
        if re.search(rf"no version of mlflow(-\w+)?=={re.escape(version)}", " ".join(done.stderr.split())):
            raise UserError(
                f"this machine's package index has no MLflow {version} that can be installed",
                "what it has: python -m pip index versions mlflow",
            )
        raise UserError(f"cannot resolve what MLflow {version} needs", *done.stderr.strip().splitlines()[-8:])
    (work / "requirements.txt").replace(lock)
    shutil.rmtree(work)
    return lock


def limits(version: str) -> tuple[str, ...]:
    """The requirements beside its own that a version of MLflow needs."""
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return tuple(limit for limit, since, until in LIMITS if since <= number < until)


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
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found or own.exists():
        return found or str(own)
    note("fetching uv, the installer")
    work = folder / "uv.partial"
    shutil.rmtree(work, ignore_errors=True)
    flags = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "install", *flags, f"--target={work}"]
    command += ["--requirement", str(FOLDER / "uv.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(
            "cannot fetch uv, which makes environments of other MLflow versions",
            *done.stderr.strip().splitlines()[-5:],
            "install it: python -m pip install uv",
        )
    work.rename(own.parent.parent)
    return str(own)
