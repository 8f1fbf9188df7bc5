"""``python -m services.role``: make sure that MLflow's own PostgreSQL role is there and owns its database.

Idempotent; run again during a rotation it sets the new passwords, the superuser's too: that one's previous password
lets it in until then. The role is no superuser and may create nothing beside its own database.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arguments
import flags
import values
from console import UserError, note, user_errors
from flags import Flag, flag
from verbs import Request, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = values.text("NAME", "a name", "mlflow")
STARTING_UP = 120.0  # seconds; a server that has just been started refuses connections for a while


def ensure(
    host: str, port: int, database: str, role: str, *, owner: str, owner_passwords: list[str], password: str
) -> None:
    """Create the role, or set its password, and give it the database.

    Args:
        host: address of the server.
        port: its port.
        database: the database that the role shall own; made if it is missing.
        role: MLflow's role.
        owner: the superuser.
        owner_passwords: the superuser's password; after it one that it replaces, if there is one.
        password: the role's password.

    Raises:
        UserError: the server does not answer within two minutes, or refuses the superuser.
    """
    import psycopg2
    from psycopg2 import sql

    connection, used = _connect(host, port, owner, owner_passwords)
    connection.autocommit = True
    name, base = sql.Identifier(role), sql.Identifier(database)
    try:
        with connection.cursor() as cursor:
            if used != owner_passwords[0]:
                change = sql.SQL("ALTER ROLE {} PASSWORD {}")
                cursor.execute(change.format(sql.Identifier(owner), sql.Literal(owner_passwords[0])))
                note(f"the superuser '{owner}' has a new password")
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
            verb = "ALTER" if cursor.fetchone() else "CREATE"
            options = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD"
            cursor.execute(
                sql.SQL("{} ROLE {} {} {}").format(
                    sql.SQL(verb), name, sql.SQL(options), sql.Literal(password)
                )
            )
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(base, name))
            cursor.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(base, name))
            # Nobody else may connect to it (PostgreSQL manual, 5.8 Privileges: PUBLIC has CONNECT by default).
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(base))
    except psycopg2.Error as error:
        raise UserError(f"cannot prepare the role '{role}': {str(error).strip()}") from None
    finally:
        connection.close()
    note(f"the role '{role}' owns the database '{database}'")


def _connect(host: str, port: int, owner: str, passwords: list[str]) -> tuple[Any, str]:
    """A connection, and the password that opened it: the first that the server takes."""
    import psycopg2

    deadline = time.monotonic() + STARTING_UP
    left = [*passwords]
    while True:
        try:
            connection = psycopg2.connect(
                host=host, port=port, user=owner, password=left[0], dbname="postgres", connect_timeout=5
            )
            return connection, left[0]
        except psycopg2.OperationalError as error:
            reason = str(error).strip()
            refused = "password" in reason
            if refused and len(left) > 1:
                del left[0]
                continue
            if refused or time.monotonic() > deadline:
                raise UserError(
                    f"PostgreSQL at {host}, port {port}, does not let its superuser in: {reason}",
                    "its password is set when the data is made; the secret's file must still be the same one",
                ) from None
            time.sleep(0.1)


@verb("role", "", "Make sure that MLflow's own PostgreSQL role is there.", module=("services.role",))
class Role(Request):
    """The step `role` of every stack with a PostgreSQL."""

    host: str = flag(flags.HOST, help="address of the server", required=True)
    port: int = flag(flags.PORT, help="its port", default=5432)
    database: str = flag(Flag("database", NAME, "the database of the role", default="mlflow"))
    role: str = flag(Flag("role", NAME, "the role", default="mlflow"))
    owner: str = flag(Flag("owner", NAME, "the superuser", default="postgres"))
    owner_password_file: str = flag(
        flags.PASSWORD_FILE, name="owner-password-file", help="file with the superuser's password"
    )
    previous_owner_password_file: str = flag(
        Flag(
            "previous-owner-password-file", values.FILE, "file with the one before; empty but for a rotation"
        )
    )
    password_file: str = flag(flags.PASSWORD_FILE, help="file with the role's password")


def main(words: Sequence[str]) -> None:
    """Do what a command line asks for; see `ensure`."""
    given = arguments.read(words, Role)
    files = [file for file in (given.owner_password_file, given.previous_owner_password_file) if file]
    ensure(
        given.host,
        given.port,
        given.database,
        given.role,
        owner=given.owner,
        owner_passwords=[password for file in files if (password := Path(file).read_text().strip())],
        password=Path(given.password_file).read_text().strip(),
    )


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
