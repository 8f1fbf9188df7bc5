"""``invoke lock``: the hashed locks of this repository, renewed from their sources or held against them.

A lock holds every package with its version and the hashes of its files, for every Python and platform that we
say it works on, and names no index. requirements.txt is resolved first, and the others follow its versions:
requirements-test.txt begins with ``-r requirements.txt`` and holds only what the tests add, and an image runs
what the tests ran.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
import tempfile
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

from console import UserError, note
from files import write_atomically
from images.lock import COMPILE, uv

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".stacks" / "tools"  # where uv is kept on a machine without the test requirements
# What README says runs or resolves; uv takes glibc 2.28 for both Linuxes, which is Debian 10 or RHEL 8.
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")


@dataclasses.dataclass(frozen=True)
class Lock:
    """One lock and what it is made from.

    Attributes:
        path: of the lock, relative to the repository's root.
        source: what it is resolved from, likewise.
        flags: of ``uv pip compile``, beside those that all locks share.
        base: the lock whose packages this one leaves out and includes with ``-r``, or empty.
    """

    path: str
    source: str
    flags: tuple[str, ...] = ()
    base: str = ""


def locks() -> list[Lock]:
    """Every lock of the repository, in the order in which they follow each other."""
    constraint = ("--constraints", "requirements.txt")
    images = []
    for source in sorted((ROOT / "images").glob("*/*.in")):
        excludes = source.with_name("excludes.txt")
        left_out = ("--excludes", _relative(excludes)) if excludes.exists() else ()
        flags = (*constraint, *left_out)
        images.append(Lock(_relative(source.with_suffix(".txt")), _relative(source), flags))
    return [
        Lock("requirements.txt", "pyproject.toml"),
        Lock("requirements-test.txt", "pyproject.toml", ("--extra", "test", *constraint), "requirements.txt"),
        *images,
    ]


def pythons() -> list[str]:
    """The Python versions that pyproject.toml allows: ``3.11`` and so on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = SpecifierSet(project["requires-python"])
    return [version for version in (f"3.{minor}" for minor in range(100)) if f"{version}.0" in allowed]


def renew(*, upgrade: bool = False) -> None:
    """Write every lock anew; without `upgrade` a version that is pinned and still allowed stays.

    Raises:
        UserError: a source cannot be resolved, or the index does not answer.
    """
    for lock in locks():
        path = ROOT / lock.path
        before = path.read_text() if path.exists() else ""
        text = _resolved(lock, before, upgrade=upgrade)
        if text != before:
            write_atomically(path, text.encode())
        for line in _difference(before, text) or ["as before"]:
            note(f"{lock.path}: {line}")


def check() -> None:
    """Hold every lock against its source, and against every Python and platform that README names.

    Resolved are names and versions, from the index's metadata; nothing is downloaded or installed.

    Raises:
        UserError: a lock is not what its source asks for, or has no wheel for a Python on a platform.
    """
    problems = []
    for lock in locks():
        text = (ROOT / lock.path).read_text()
        problems += [f"{lock.path}: {line}" for line in _difference(text, _resolved(lock, text))]
    if problems:
        raise UserError("locks no longer agree with their sources", *problems, "renew them: invoke lock")
    cells = [
        (lock, python, platform) for lock in locks()[1:] for python in pythons() for platform in PLATFORMS
    ]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        problems = [line for line in pool.map(lambda cell: _without_wheel(*cell), cells) if line]
    if problems:
        raise UserError(
            "not every package has a wheel everywhere",
            *problems,
            "hold it back in pyproject.toml: package<VERSION",
        )
    note(f"{len(locks())} locks agree with their sources, on Python {', '.join(pythons())}: wheels alone for")
    note(", ".join(PLATFORMS))


def entries(text: str) -> dict[str, str]:
    """What a lock pins: ``name==version ; marker`` to the entry's whole text, its hashes included."""
    parts = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    return {part.partition("\\\n")[0].strip(): part for part in parts}


def added(text: str, base: str) -> str:
    """What is left of a lock when it begins with another: only what that one does not pin the same way.

    Args:
        text: of the whole lock.
        base: text of the lock that it includes.
    """
    known = entries(base)
    return "".join(part for pin, part in entries(text).items() if pin not in known)


def _resolved(lock: Lock, before: str, *, upgrade: bool = False) -> str:
    """The text of a lock as its source asks for it now; `before` says which versions and hashes to keep."""
    include = f"-r {lock.base}\n" if lock.base else ""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "lock.txt")
        output.write_text(before.removeprefix(include))
        flags = [*lock.flags, "--output-file", str(output), *(["--upgrade"] if upgrade else [])]
        answer = uv(TOOLS, *COMPILE, *flags, lock.source, cwd=ROOT)
        if answer.returncode != 0:
            raise UserError(f"cannot resolve {lock.source}", *answer.stderr.strip().splitlines()[-8:])
        text = output.read_text()
    return include + added(text, (ROOT / lock.base).read_text()) if lock.base else text


def _difference(before: str, after: str) -> list[str]:
    """Say what another resolution pins otherwise. New files of the same version do not count."""
    old, new = entries(before), entries(after)
    return [f"- {pin}" for pin in old if pin not in new] + [f"+ {pin}" for pin in new if pin not in old]


def _without_wheel(lock: Lock, python: str, platform: str) -> str:
    """Say which package of a lock has no wheel for a Python on a platform; empty if all have one."""
    flags = ["--dry-run", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    with tempfile.TemporaryDirectory() as nowhere:
        where = ["--target", nowhere, "--python-version", python, "--python-platform", platform]
        answer = uv(TOOLS, "pip", "install", *flags, *where, "--requirement", lock.path, cwd=ROOT)
    if answer.returncode == 0:
        return ""
    return f"{lock.path} on Python {python}, {platform}: {' '.join(answer.stderr.split())}"


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))
