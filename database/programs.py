"""PostgreSQL's own programs: found once, run without a password in their arguments, with their last words kept."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from console import UserError
from database.address import redact
from database.installed import installed
from database.sessions import APPLICATION_NAME
from flags import PG_BIN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL


@dataclass(frozen=True)
class Programs:
    """How to run pg_dump, pg_restore and psql: an argv prefix, or a folder of this machine."""

    prefix: tuple[str, ...]
    folder: Path | None

    def argv(self, program: str, url: URL, *arguments: str) -> list[str]:
        """Return the command. The password is never in it."""
        place = [] if self.folder is None else [("host", url.host), ("port", url.port)]
        query = [] if self.folder is None else list(url.query.items())
        parts = [*place, ("user", url.username), ("dbname", url.database), *query]
        target = " ".join(f"{key}={_quote(value)}" for key, value in parts if value and key != "password")
        name = program if self.folder is None else str(self.folder / program)
        return [*self.prefix, name, f"--dbname={target}", *arguments]

    def plain(self, program: str, *arguments: str) -> list[str]:
        """Return the command for a program that connects to no database."""
        return [*self.prefix, program if self.folder is None else str(self.folder / program), *arguments]


def _quote(value: object) -> str:
    text = value[0] if isinstance(value, tuple) else str(value)
    return "'" + str(text).replace("\\", "\\\\").replace("'", "\\'") + "'"


def environment(url: URL) -> dict[str, str]:
    """Return the environment for a program: a password of the URI goes here, not into its arguments."""
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    options = f"{os.environ.get('PGOPTIONS', '')} -c statement_timeout=0 -c lock_timeout=0".strip()
    ours = {"PGCONNECT_TIMEOUT": "10", "PGAPPNAME": APPLICATION_NAME, "PGOPTIONS": options}
    return {**os.environ, **ours, **password}


def find_programs(server_version: int, command: str | None = None) -> Programs:
    """Return PostgreSQL's programs of the server's major version, or of the nearest newer one.

    Looks into ``MLFLOW_STACKS_PG_BIN`` first, and then where `database.installed` does.

    Args:
        server_version: as ``SHOW server_version_num`` says, such as 180004.
        command: a command that runs its arguments where the programs are, such as
            ``docker compose exec -T postgres``; they then connect as if on the server's own host.

    Raises:
        UserError: none is new enough: pg_dump refuses servers newer than itself.
    """
    if command:
        return Programs(tuple(shlex.split(command)), None)
    major = server_version // 10000
    folders = installed("pg_dump", "pg_restore", "psql", chosen=os.environ.get(PG_BIN_VARIABLE, ""))
    usable = [version for version in sorted(folders) if version >= major]
    if not usable:
        have = ", ".join(str(version) for version in sorted(folders)) or "none"
        raise UserError(
            f"the server is PostgreSQL {major}, and no pg_dump is new enough for it (found: {have})",
            f"install postgresql-client-{major}, or set {PG_BIN_VARIABLE} to the folder of its programs,",
            "or run them where the server is: --pg-command='docker compose exec -T postgres'",
        )
    return Programs((), folders[usable[0]])


class Job:
    """A running program whose last words are kept."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.process, self._errors = process, errors

    def check(self) -> None:
        """Wait for the end.

        Raises:
            UserError: it failed; the last lines it wrote to standard error are in the message.
        """
        code = self.process.wait()
        if code == 0:
            return
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        words = self.process.args if isinstance(self.process.args, list) else []
        name = next(
            (word for word in (Path(str(word)).name for word in words) if word in _PROGRAMS), "program"
        )
        last = [redact(line) for line in lines if line.strip()][-5:] or [f"exit code {code}"]
        raise UserError(f"{name} failed: {last[0]}", *last[1:])


_PROGRAMS = {"pg_dump", "pg_restore", "psql"}


@contextmanager
def run(argv: list[str], url: URL, *, stdin: Any, stdout: Any) -> Iterator[Job]:
    """Run a program for the time of the block; it is ended with the block."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=errors, env=environment(url))
        except OSError as error:
            raise UserError(f"cannot run {argv[0]}: {error.strerror}") from None
        try:
            yield Job(process, errors)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
