"""The artifacts of a new backup set: copied once, linked while they stay the same, named where they cannot be read."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from artifacts import StoreError, UnreadableError, open_store
from backups.destination import artifacts_in, roots, store_errors, threads
from backups.parallel import in_parallel
from backups.sets import Entry, entries
from console import note, progress, size
from files import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from artifacts import Store, StoredObject
    from backups.contract import Keeper, Place
    from backups.sets import BackupSet
    from console import Progress

LIST = "artifacts.jsonl"
# An object written so few seconds before it was listed may change again under the same time stamp: S3 tells
# whole seconds only.
_SETTLED = 3.0


class LeftOut(NamedTuple):
    """What a set cannot hold: its name, and why."""

    key: str
    reason: str


def save_artifacts(
    destination: str, folder: Path, earlier: Sequence[BackupSet], place: Place
) -> dict[str, Any]:
    """Bring every object into a new set, or link it from the last set that has it unchanged.

    Args:
        destination: the artifact destination.
        folder: the new set's.
        earlier: the sets of the same database, oldest first.
        place: where the sets are.

    Returns:
        The manifest's part about the artifacts.

    Raises:
        UserError: the store cannot be read.
        OSError: the disk is full, for example.
    """
    begun = time.time()
    with store_errors():
        store = open_store(destination)
        last = next(
            (x for x in reversed(earlier) if x.artifacts and x.artifacts["source"] == store.uri), None
        )
        saver = _Saver(store, place.keeper(folder, last), last)
        count, total, linked, renamed = 0, 0, 0, 0
        left_out = list[LeftOut]()
        path = folder / LIST
        with (
            path.open("w", encoding="utf-8") as lines,
            progress("artifacts", 0, "objects") as step,
            _counting(store, step),
        ):
            for saved, was_linked in in_parallel(threads(store), saver.save, artifacts_in(store)):
                if isinstance(saved, LeftOut):
                    left_out.append(saved)
                if not isinstance(saved, Entry):
                    continue
                lines.write(saved.line())
                count, total, linked = count + 1, total + saved.size, linked + was_linked
                renamed += bool(saved.stored)
                step.add(1, size(total))
    os.sync()  # one for all files; fsync for each would take minutes
    _tell(left_out)
    return {
        "source": store.uri,
        "roots": roots(destination),
        "list": LIST,
        "list_bytes": path.stat().st_size,
        "sha256": sha256(path),
        "objects": count,
        "bytes": total,
        "linked": linked,
        "renamed": renamed,
        "left_out": [missing._asdict() for missing in left_out],
        "listed_at": begun,
    }


def _tell(left_out: Sequence[LeftOut]) -> None:
    if left_out:
        shown = ", ".join(f"{missing.key!r} ({missing.reason})" for missing in left_out[:3])
        more = f" and {len(left_out) - 3} more, see the manifest" if len(left_out) > 3 else ""
        note(f"left out, for a backup holds the content of files: {shown}{more}")


@contextmanager
def _counting(store: Store, step: Progress) -> Iterator[None]:
    """Count the objects beside the copying, which may take hours: how many there are is known soon."""
    over = threading.Event()

    def count() -> None:
        number = 0
        with suppress(StoreError):  # the copying meets it, too, and says so
            for _ in artifacts_in(store):
                number += 1
                if over.is_set():
                    return
            step.total = number

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    try:
        yield
    finally:
        over.set()
        counter.join()


class _Saver:
    """Brings one object into the set; used from several threads."""

    def __init__(self, store: Store, keeper: Keeper, last: BackupSet | None) -> None:
        self._store, self._keeper = store, keeper
        self._settled = (last.artifacts or {}).get("listed_at", 0.0) - _SETTLED if last else 0.0
        self._known = {entry.key: entry for entry in entries(last)} if last else {}

    def save(self, there: StoredObject) -> tuple[Entry | LeftOut | None, int]:
        """Link or copy; returns what came of it (None when it is gone) and 1 if it was linked."""
        if there.kind != "file":
            return LeftOut(there.key, there.kind), 0
        old = self._known.get(there.key)
        if old and self._unchanged(old, there) and self._keeper.link(old):
            return old, 1
        try:
            kept = self._keeper.keep(self._store, there.key)
        except UnreadableError as error:
            return LeftOut(there.key, error.reason), 0
        if kept is None:  # deleted since it was listed
            return None, 0
        fetched, stored = kept
        return Entry(there.key, fetched.size, fetched.sha256, there.modified, stored), 0

    def _unchanged(self, old: Entry, there: StoredObject) -> bool:
        return (
            there.modified is not None
            and old.modified == there.modified
            and old.size == there.size
            and there.modified < self._settled
        )
