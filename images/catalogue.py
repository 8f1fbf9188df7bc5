"""The images of images.toml: their settings, their build contexts and the hashes of these."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import re
import shutil
import tomllib
from pathlib import Path

from console import UserError

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
REPOSITORY = "mlflow-stacks"
INDEX = "index"  # the context's folder with this machine's settings: never part of the content
_LEFT_OUT = ("__pycache__", "*.pyc", "*.in", ".*")
_BACKUPS = ("20*Z*", "*.lock")  # sets lie beside the code of backups/ where no other place is given


@dataclasses.dataclass(frozen=True)
class Base:
    """What an image is built on.

    Attributes:
        name: its name in images.toml.
        reference: the official image, with its digest, or empty where there is none.
        packages: the Debian packages that make the same without a registry.
    """

    name: str
    reference: str
    packages: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Image:
    """An image of this project.

    Attributes:
        name: its folder under images/ and its name in ``invoke build --image``.
        base: what it is built on.
        version: the version in its tag.
        official: the published image with the same contract, with its digest, or empty where there is none.
        sources: files and packages of this repository that it carries, relative to the root; one that is not
            there is left out.
        lock: takes the place of the folder's own requirements.txt.
    """

    name: str
    base: Base
    version: str
    official: str = ""
    sources: tuple[str, ...] = ()
    lock: Path | None = None


@functools.cache
def _table() -> dict[str, dict[str, dict[str, str | list[str]]]]:
    return tomllib.loads((FOLDER / "images.toml").read_text())


def suite() -> str:
    """The Debian release of the bases made from packages."""
    return str(_table()["suite"])


def names() -> list[str]:
    """The images there are, in the order they are built."""
    return list(_table()["images"])


def fetched(name: str) -> str:
    """The reference of an image that is only fetched, never built here."""
    return str(_table()["fetched"][name])


def image(name: str, lock: Path | None = None) -> Image:
    """One image's settings.

    Args:
        name: one of `names`.
        lock: a lock that takes the place of the folder's own, for another version.

    Raises:
        UserError: there is no such image.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        raise UserError(
            f"unknown image '{name}'",
            f"known images: {', '.join(names())}",
            *([f"did you mean: invoke build --image={near[0]}"] if near else []),
        )
    row = _table()["images"][name]
    base = _table()["bases"][str(row["base"])]
    return Image(
        name=name,
        base=Base(str(row["base"]), str(base.get("reference", "")), tuple(base["packages"])),
        version=_version(str(row["version"]), lock),
        official=str(row.get("official", "")),
        sources=tuple(row.get("sources", ())),
        lock=lock,
    )


def _version(value: str, other: Path | None) -> str:
    """A version as it is written, or what a lock pins a package to (``package/folder/requirements.txt``)."""
    package, _, lock = value.partition("/")
    if not lock:
        return value
    match = re.search(
        rf"^{re.escape(package)}==([^\s;\\]+)", (other or FOLDER / lock).read_text(), re.MULTILINE
    )
    if match is None:
        raise UserError(f"images/{lock} does not pin '{package}'", "renew it: invoke lock")
    return match[1]


def assemble(what: Image, folder: Path) -> None:
    """Lay out the build context of an image: its own folder, and its sources under ``app/``.

    Args:
        what: the image.
        folder: an empty folder, filled with the context but for ``index/``.
    """
    left_out = shutil.ignore_patterns(*_LEFT_OUT, *_BACKUPS)
    shutil.copytree(FOLDER / what.name, folder, ignore=left_out, dirs_exist_ok=True)
    if what.lock:
        shutil.copyfile(what.lock, folder / "requirements.txt")
    if what.sources:
        (folder / "app").mkdir()
    for source in what.sources:
        origin = ROOT / source
        if origin.is_dir():
            shutil.copytree(origin, folder / "app" / source, ignore=left_out)
        elif origin.is_file():
            shutil.copy2(origin, folder / "app" / source)


def content_hash(folder: Path) -> str:
    """A build context's content as 64 hexadecimal digits: names, permissions to execute, and bytes.

    Times and owners do not count, nor does ``index/``, which says where packages come from but not which.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if name.parts[0] == INDEX:
            continue
        content = path.read_bytes()
        digest.update(f"{name.as_posix()}\0{bool(path.stat().st_mode & 0o100):d}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
