"""Make the old databases of this folder again: install each MLflow, let it write, keep the dumps.

    python tests/databases/make.py [VERSION]... [--environments=FOLDER] [--to=FOLDER]

Needs uv and Python 3.11. For each version and kind of database there are two small files: the dump as SQL
(``VERSION.sqlite.sql.gz``, ``VERSION.postgresql.sql.gz``) and what that same version's client reads from it
(``VERSION.sqlite.json.gz``, ``VERSION.postgresql.json.gz``).
"""

from __future__ import annotations

import argparse  # a tool that only we type
import gzip
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from develop.scratch import servers  # noqa: E402

_OLD = ["setuptools<80", "numpy<2", "pandas<2.3", "sqlalchemy<2.1"]  # what they were released with
_TRACING = [
    *_OLD,
    "opentelemetry-sdk<1.30",
    "opentelemetry-api<1.30",
]  # newer ones break their span processor
PINS = {
    "2.0.1": ["setuptools<80", "numpy<2", "pandas<2", "sqlalchemy<2"],
    "2.9.2": _OLD,
    "2.16.2": _TRACING,
    "2.22.5": _TRACING,
    "3.1.4": _TRACING,
    "3.5.1": _TRACING,
    "3.10.1": ["setuptools<80", "sqlalchemy<2.1"],
    "3.15.1": ["setuptools<80", "sqlalchemy<2.1"],
}


def install(version: str, environments: Path) -> Path:
    """Return the Python of an environment that holds this MLflow version."""
    environment = environments / version
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "-q", "--python", "3.11", str(environment)], check=True)
    wanted = [f"mlflow=={version}", "psycopg2-binary", *PINS[version]]
    subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), *wanted], check=True)
    return python


def fill(python: Path, uri: str, folder: Path) -> bytes:
    """Let one MLflow version write into an empty database; return what it reads back, as JSON."""
    shutil.copy(HERE / "content.py", folder / "content.py")
    write = [str(python), "content.py", "write", uri, str(folder)]
    answer = subprocess.run(write, cwd=folder, capture_output=True, text=True, check=False)
    if answer.returncode or "Failed to" in answer.stderr:
        raise SystemExit(f"{' '.join(write)}\n{answer.stderr[-4000:]}")
    return subprocess.run([str(python), "content.py", "read", uri], cwd=folder, stdout=-1, check=True).stdout


def keep(path: Path, data: bytes) -> None:
    """Write one compressed file, the same bytes for the same data."""
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(data, 9, mtime=0))


def main() -> None:
    """Make what the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", default=list(PINS))
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "mlflow-versions")
    parser.add_argument(
        "--to", type=Path, default=HERE, help="where the files go (default: beside this script)"
    )
    arguments = parser.parse_args()
    to: Path = arguments.to
    to.mkdir(parents=True, exist_ok=True)
    arguments.environments.mkdir(parents=True, exist_ok=True)
    with servers.postgres() as server:
        for version in arguments.versions:
            python = install(version, arguments.environments)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                keep(to / f"{version}.sqlite.json", fill(python, f"sqlite:///{folder}/mlflow.db", folder))
                with sqlite3.connect(folder / "mlflow.db") as database:
                    keep(to / f"{version}.sqlite.sql", "\n".join(database.iterdump()).encode())
            with tempfile.TemporaryDirectory() as name:
                keep(to / f"{version}.postgresql.json", fill(python, server.create(version), Path(name)))
                keep(to / f"{version}.postgresql.sql", portable(server.dump(version)))
            sys.stderr.write(f"{version}: done\n")


def portable(dump: bytes) -> bytes:
    """Drop what ties a plain dump to its role and to PostgreSQL 17 and later."""
    drop = (b"SET transaction_timeout", b"ALTER TABLE public.", b"ALTER SEQUENCE public.")
    lines = dump.splitlines()
    return b"\n".join(
        x for x in lines if not (x.startswith(drop) and (b"OWNER TO" in x or x.startswith(drop[0])))
    )


if __name__ == "__main__":
    main()
