"""``python -m services.role``: make sure that MLflow's own PostgreSQL role is there and owns its database.

Idempotent; run again during a rotation it sets the new passwords, the superuser's too: that one's previous password
lets it in until then. The role is no superuser and may create nothing beside its own database.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from console import UserError, note, user_errors

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


def main() -> None:
    """Read the flags; passwords come from files."""
    parser = argparse.ArgumentParser(prog="python -m services.role", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--database", default="mlflow")
    parser.add_argument("--role", default="mlflow")
    parser.add_argument("--owner", default="postgres")
    parser.add_argument("--owner-password-file", type=Path, required=True)
    parser.add_argument("--previous-owner-password-file", type=Path, help="empty but for a rotation")
    parser.add_argument("--password-file", type=Path, required=True)
    given = parser.parse_args()
    files = [file for file in (given.owner_password_file, given.previous_owner_password_file) if file]
    ensure(
        given.host,
        given.port,
        given.database,
        given.role,
        owner=given.owner,
        owner_passwords=[password for file in files if (password := file.read_text().strip())],
        password=given.password_file.read_text().strip(),
    )


if __name__ == "__main__":
    with user_errors():
        main()
