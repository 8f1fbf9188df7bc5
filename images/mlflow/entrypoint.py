"""Hand mounted secrets over in the form in which programs take them, then become the command.

- ``/run/secrets/pgpass`` is copied to ``PGPASSFILE``: libpq ignores a password file that others can read (PostgreSQL
  manual, 32.16), and a mounted one belongs to another uid.
- ``MLFLOW_CRYPTO_KEK_PASSPHRASE_FILE`` becomes ``MLFLOW_CRYPTO_KEK_PASSPHRASE``, which MLflow reads from its
  environment alone (mlflow.utils.crypto). It is in no image, no `docker inspect` and no command line.
- What a process writes into the volume, the others of the group `mlflow` may change: a backup or a restore runs as
  the user who asked for it, so that the files of the set are his.
"""

import os
import sys
from pathlib import Path

PGPASS = Path("/run/secrets/pgpass")
PASSPHRASE = "MLFLOW_CRYPTO_KEK_PASSPHRASE"  # noqa: S105 (the variable's name)


def read(path: Path) -> str:
    """The text of a secret, or a message and the end."""
    try:
        return path.read_text()
    except OSError as error:
        sys.exit(f"error: cannot read the secret {path}: {error.strerror}\n  this runs as uid {os.getuid()}")


def main() -> None:
    """Prepare and exec."""
    os.umask(0o002)
    if PGPASS.exists() and "PGPASSFILE" in os.environ:
        private = os.open(os.environ["PGPASSFILE"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(private, "w") as file:
            file.write(read(PGPASS))
    if named := os.environ.get(f"{PASSPHRASE}_FILE"):
        os.environ[PASSPHRASE] = read(Path(named)).strip()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 (no shell in it)


if __name__ == "__main__":
    main()
