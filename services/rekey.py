"""``python -m services.rekey URI PREVIOUS [CURRENT]``: open the gateway's stored secrets to a new passphrase.

Two files with passphrases; without the second, the new one is the server's own. The server runs it before it serves,
while a rotation is under way; a restore runs it for a set that was taken before a rotation, or from another stack.
Each secret is encrypted with a key of its own, and that key with one derived from the passphrase (mlflow.utils.crypto,
3.17.2): the former is encrypted anew, the secret stays as it is. All in one transaction; what the new passphrase opens
already is left alone, so a second run changes nothing. ``mlflow crypto rotate-kek`` does the same with a version
number, which every server would have to be told.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sqlalchemy import column, inspect, select, table, update

from console import note, user_errors
from database.connection import connect

SECRETS = table("secrets", column("secret_id"), column("secret_name"), column("wrapped_dek"))


def rekey(uri: str, previous: str, current: str) -> int:
    """Encrypt every secret's key anew.

    Args:
        uri: database of the tracking store.
        previous: the passphrase before.
        current: the passphrase from now on.

    Returns:
        How many keys were changed. One that neither passphrase opens is left alone, and named.

    Raises:
        UserError: the database cannot be reached.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.crypto import KEKManager, unwrap_dek, wrap_dek

    new, old = (KEKManager(passphrase).get_kek() for passphrase in (current, previous))

    def opened(wrapped: bytes, key: bytes) -> bytes | None:
        try:
            return unwrap_dek(bytes(wrapped), key)
        except MlflowException:
            return None

    changed = 0
    with connect(uri).begin() as connection:
        if not inspect(connection).has_table(SECRETS.name):  # a schema of before the gateway
            return 0
        for row in connection.execute(select(SECRETS).with_for_update()).all():
            if opened(row.wrapped_dek, new):
                continue
            if (secret_key := opened(row.wrapped_dek, old)) is None:
                note(f"neither passphrase opens the gateway's secret '{row.secret_name}': store it again")
                continue
            this = SECRETS.c.secret_id == row.secret_id
            connection.execute(update(SECRETS).where(this).values(wrapped_dek=wrap_dek(secret_key, new)))
            changed += 1
    return changed


if __name__ == "__main__":
    with user_errors():
        uri, before, *after = sys.argv[1:]
        passphrase = Path(after[0]).read_text() if after else os.environ["MLFLOW_CRYPTO_KEK_PASSPHRASE"]
        count = rekey(uri, Path(before).read_text(), passphrase)
        note(f"the new passphrase opens the gateway's secrets ({count} changed)")
