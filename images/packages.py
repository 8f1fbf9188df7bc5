"""Base images from packages alone: mmdebstrap on the mirror this machine is configured for, no registry."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from console import UserError, note
from images import apt, engine
from images.catalogue import FOLDER, REPOSITORY, suite

if TYPE_CHECKING:
    from images.catalogue import Base

CUSTOMIZE = FOLDER / "bases" / "customize"
FRESH = timedelta(days=1)  # an older base is made again: it has the archive's security updates then
LABEL = "org.mlflow-stacks.base"

# Documentation and translations stay out, as in Debian's own slim images; copyright files stay.
DPKG_OPTIONS = (
    "force-unsafe-io",  # no fsync: a base that a power cut spoils is made again
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
    # PostgreSQL without its JIT compiler (LLVM, 130 MB): without llvmjit.so it runs as with `jit = off`.
    "path-exclude=/usr/lib/*/libLLVM*",
    "path-exclude=/usr/lib/llvm-*",
    "path-exclude=/usr/lib/postgresql/*/lib/llvmjit*",
    "path-exclude=/usr/lib/postgresql/*/lib/bitcode/*",
)


def tag(base: Base) -> str:
    """The local tag of a base made from packages; it changes with what goes into it, not with the archive."""
    content = "\0".join([suite(), *base.packages, *DPKG_OPTIONS, CUSTOMIZE.read_text()])
    return f"{REPOSITORY}/base-{base.name}:{suite()}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def is_fresh(reference: str) -> bool:
    """Whether the base is here and no older than `FRESH`."""
    image = engine.inspect(reference)
    if image is None:
        return False
    # Nanoseconds are more than fromisoformat takes.
    created = datetime.fromisoformat(image["Created"][:19]).replace(tzinfo=UTC)
    return datetime.now(UTC) - created < FRESH


def bootstrap_command(base: Base, release: str, folder: Path) -> list[str]:
    """The mmdebstrap command (see its manual) for one base.

    Args:
        base: what to put into it.
        release: the Debian release.
        folder: holds ``sources.list``, ``apt.conf`` (obeyed, and taken out again by the hook) and the hook,
            ``customize``; ``root.tar`` will be there. Sources without a key are checked with apt's own.
    """
    return [
        *("mmdebstrap", "--variant=minbase", f"--include={','.join(base.packages)}"),
        f"--aptopt={folder / 'apt.conf'}",
        *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
        f"--customize-hook={folder / 'customize'}",
        *(release, str(folder / "root.tar"), str(folder / "sources.list")),
    ]


def make(base: Base) -> str:
    """Make a base from packages and import it into the engine.

    Args:
        base: what to put into it.

    Returns:
        Its local tag.

    Raises:
        UserError: mmdebstrap is missing, the machine has no archive of its own, or the bootstrap failed.
    """
    reference = tag(base)
    if is_fresh(reference):
        return reference
    if shutil.which("mmdebstrap") is None:
        raise UserError(
            "mmdebstrap is missing, which makes the base images from packages",
            "install it: apt-get install mmdebstrap",
        )
    started = time.monotonic()
    own = apt.own_release()
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-base-") as name:
        folder = Path(name)
        release = suite()
        try:
            _bootstrap(base, release, own, folder)
        except UserError as error:
            if release == own or not _lacks(error, release):
                raise
            note(f"this machine's mirror or keyring lacks Debian's '{release}': making the base of '{own}'")
            release = own
            _bootstrap(base, release, own, folder)
        engine.run(
            [
                *("docker", "import", "--change", f"LABEL {LABEL}={base.name}"),
                *("--change", f"LABEL org.opencontainers.image.base.name={release}"),
                *("--change", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
                *("--change", "ENV LANG=C.UTF-8"),
                *(str(folder / "root.tar"), reference),
            ],
            doing=f"importing the base image '{base.name}'",
        )
    note(f"made {reference} from the packages of '{release}' in {time.monotonic() - started:.0f} s")
    return reference


def _bootstrap(base: Base, release: str, own: str, folder: Path) -> None:
    """One run of mmdebstrap, with the machine's own sources, keys and settings."""
    lines = []
    for number, source in enumerate(apt.for_suite(apt.read_sources(), own, release)):
        key_file = None
        if source.key:
            key_file = folder / f"key-{number}.asc"
            key_file.write_text(source.key)
        lines.append(source.line(key_file))
    (folder / "sources.list").write_text("\n".join([*lines, ""]))
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    (folder / "apt.conf").write_text(apt.settings(dump))
    # A copy, because mmdebstrap runs a hook through a shell and a checkout's path may hold a blank.
    shutil.copy(CUSTOMIZE, folder / "customize")
    command = bootstrap_command(base, release, folder)
    engine.run(command, doing=f"making the base image '{base.name}' of '{release}'")


def _lacks(error: UserError, release: str) -> bool:
    """Whether a bootstrap failed because the mirror has no such release, or the machine no key for it."""
    signs = ("does not have a Release file", "NO_PUBKEY", "is not signed", "no longer has a Release file")
    return any(sign in line for line in error.hints for sign in signs) and release in str(error)
