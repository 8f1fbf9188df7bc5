"""The artifact destination as backup and restore see it: opened, named as rows name it, and what lies outside it."""

from __future__ import annotations

import errno
import os
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts import StoreError, open_store
from artifacts.base import OWN
from artifacts.local import LocalStore
from console import UserError, note
from database.address import redact
from database.locations import outside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

    from artifacts import Store, StoredObject


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what a store refuses into a message.

    Raises:
        UserError: a `StoreError` was raised inside the block.
    """
    try:
        yield
    except StoreError as error:
        full = os.strerror(errno.ENOSPC) in str(error)
        hint = "make room there" if full else "check --artifacts-destination and its keys"
        raise UserError(f"artifacts: {redact(str(error))}", hint) from None


def artifacts_in(store: Store) -> Iterator[StoredObject]:
    """Yield what a store holds, but for what this project keeps there: it tells of one database, not of a copy."""
    return (there for there in store.list() if not there.key.startswith(OWN))


def threads(store: Store) -> int:
    """Return how many objects to work on at once: a disk is kept busy by few, a network wants many."""
    return 2 if isinstance(store, LocalStore) else 8


def roots(destination: str) -> list[str]:
    """Return the names of an artifact destination that rows may have: as it was given, and what that leads to."""
    with store_errors():
        resolved = open_store(destination).uri
    given = destination.removeprefix("file://")
    return list(
        dict.fromkeys([resolved, *([str(Path(given).absolute())] if resolved.startswith("/") else [])])
    )


def tell_outside(engines: Iterable[Engine], destination: str, what: str) -> dict[str, int]:
    """Say what has its artifacts outside a destination.

    Args:
        engines: to the databases.
        destination: the artifact destination.
        what: the rest of the sentence: ``are not in this backup``.

    Returns:
        How many of each kind (``runs``, ``experiments``, ...) do; kinds without one are left out.
    """
    counts, examples = Counter[str](), list[str]()
    for engine in engines:
        elsewhere = outside(engine, roots(destination))
        counts.update(elsewhere.counts)
        examples += elsewhere.examples
    if counts:
        kinds = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        shown = ", ".join(redact(location) for location in dict.fromkeys(examples[:3]))
        note(f"artifacts outside {redact(destination)} {what}: those of {kinds}, such as {shown}")
    return dict(counts)
