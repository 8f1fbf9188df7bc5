"""The artifacts of a backup set: copied out once, linked while they stay the same, and put back."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts import StoreError, open_store
from artifacts.base import is_safe_key
from artifacts.local import LocalStore
from backups.sets import Entry, entries, in_parallel
from console import UserError, note, progress, size
from database.connection import redact
from database.locations import outside
from files import require_room, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Engine

    from artifacts import Store, StoredObject
    from artifacts.base import Fetched
    from backups.places import Keeper, Place
    from backups.sets import BackupSet
    from console import Progress

LIST = "artifacts.jsonl"
# An object written so few seconds before it was listed may change again under the same time stamp: S3 tells
# whole seconds only.
_SETTLED = 3.0


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        full = os.strerror(errno.ENOSPC) in str(error)
        hint = "make room there" if full else "check --artifacts-destination and its keys"
        raise UserError(f"artifacts: {redact(str(error))}", hint) from None


def _threads(store: Store) -> int:
    """Return how many objects to work on at once: a disk is kept busy by few, a network wants many."""
    return 2 if isinstance(store, LocalStore) else 8


def roots(destination: str) -> list[str]:
    """Return the names of an artifact destination that rows may have: as it was given, and what that leads to."""
    with _store_errors():
        found = open_store(destination).uri
    given = destination.removeprefix("file://")
    return list(dict.fromkeys([found, *([str(Path(given).absolute())] if found.startswith("/") else [])]))


def warn_outside(engine: Engine, destination: str, what: str) -> int:
    """Say which experiments have their artifacts outside a destination; returns how many locations."""
    elsewhere = outside(engine, roots(destination))
    if elsewhere:
        shown = ", ".join(redact(location) for location in elsewhere[:3])
        more = f" and {len(elsewhere) - 3} more" if len(elsewhere) > 3 else ""
        note(f"artifacts outside {redact(destination)} {what}: {shown}{more}")
    return len(elsewhere)


def save_artifacts(
    destination: str, folder: Path, earlier: Sequence[BackupSet], place: Place
) -> dict[str, Any]:
    """Copy every object into ``artifacts/`` of a new set, or link it from the last set that has it unchanged.

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
    with _store_errors():
        store = open_store(destination)
        last = next(
            (x for x in reversed(earlier) if x.artifacts and x.artifacts["source"] == store.uri), None
        )
        saver = _Saver(store, place.keeper(folder, last), last)
        count, total, linked = 0, 0, 0
        path = folder / LIST
        with (
            path.open("w", encoding="utf-8") as lines,
            progress("artifacts", 0, "objects") as step,
            _counting(store, step),
        ):
            for entry, was_linked in in_parallel(_threads(store), saver.save, store.list()):
                if entry is None:
                    continue
                lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
                count, total, linked = count + 1, total + entry.size, linked + was_linked
                step.add(1, size(total))
    os.sync()  # one for all files; fsync for each would take minutes
    return {
        "source": store.uri,
        "roots": roots(destination),
        "list": LIST,
        "list_bytes": path.stat().st_size,
        "sha256": sha256(path),
        "objects": count,
        "bytes": total,
        "linked": linked,
        "listed_at": begun,
    }


@contextmanager
def _counting(store: Store, step: Progress) -> Iterator[None]:
    """Count the objects beside the copying, which may take hours: how many there are is known soon."""
    over = threading.Event()

    def count() -> None:
        number = 0
        with suppress(StoreError):  # the copying meets it, too, and says so
            for _ in store.list():
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

    def save(self, found: StoredObject) -> tuple[Entry | None, int]:
        """Link or copy; returns the entry (None when there is nothing to keep) and 1 if it was linked."""
        if found.key.endswith("/"):  # the mark some S3 tools make for a folder
            return None, 0
        if not is_safe_key(found.key):
            raise UserError(f"object '{found.key}' has a name that leads out of its store", "rename it")
        try:
            old = self._known.get(found.key)
            if old and self._unchanged(old, found) and self._keeper.link(old):
                return old, 1
            fetched = self._keeper.keep(self._store, found.key)
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            raise UserError(
                f"object '{found.key}' cannot be a file: another object has its name as a folder",
                "rename one of the two in the store",
            ) from None
        if fetched is None:  # deleted since it was listed
            return None, 0
        return Entry(found.key, fetched.size, fetched.sha256, found.modified), 0

    def _unchanged(self, old: Entry, found: StoredObject) -> bool:
        return (
            found.modified is not None
            and old.modified == found.modified
            and old.size == found.size
            and found.modified < self._settled
        )


class FolderKeeper:
    """Keeps artifacts as files under their own keys; see `backups.places.Keeper`."""

    def __init__(self, folder: Path, last: BackupSet | None) -> None:
        self._folder = folder
        self._last_folder = last.path / "artifacts" if last else folder
        folder.mkdir()
        # asked once a folder, not once an object
        self._make = lru_cache(maxsize=4096)(lambda path: path.mkdir(parents=True, exist_ok=True))

    def link(self, old: Entry) -> bool:
        """Make a hard link; False when the old file is gone, cut short, or has too many of them."""
        source, target = self._last_folder / old.key, self._folder / old.key
        self._make(target.parent)
        try:
            if source.stat().st_size != old.size:  # damaged since
                return False
            target.hardlink_to(source)
        except OSError:
            target.unlink(missing_ok=True)
            return False
        return True

    def keep(self, store: Store, key: str) -> Fetched | None:
        """Copy it to its own key."""
        target = self._folder / key
        self._make(target.parent)
        fetched = store.fetch(key, target)
        if fetched is None:
            target.unlink(missing_ok=True)
        return fetched


class Restore:
    """Puts a set's objects back in two steps, so that the old database always finds its own."""

    def __init__(self, destination: str, one: BackupSet) -> None:
        """Look what is there; changes nothing.

        Raises:
            UserError: the store cannot be read, or it is a folder whose disk has no room for the set's objects.
        """
        self._set = one
        self._written = self._bytes = 0  # objects of either step; bytes of those that were added
        self.moved = 0  # locations in rows
        with _store_errors():
            self._store = open_store(destination)
            self._there = {found.key: found for found in self._store.list()}
        self._different: list[Entry] = []
        self._to_add = int((one.artifacts or {}).get("objects", 0))
        old = (entry for entry in entries(one) if entry.key in self._there)
        with _store_errors(), progress("comparing artifacts", len(self._there), "objects") as step:
            for entry, same in in_parallel(_threads(self._store), self._compare, old):
                self._to_add -= 1
                self._different += [] if same else [entry]
                step.add(1)
        self.source = self._store.uri
        if isinstance(self._store, LocalStore):
            place = next(path for path in (Path(self.source), *Path(self.source).parents) if path.is_dir())
            missing = sum(entry.size for entry in self._missing())
            # a new object is whole before the old one goes
            again = max((entry.size for entry in self._different), default=0)
            grown = sum(entry.size - self._there[entry.key].size for entry in self._different)
            require_room(place, missing + again + max(0, grown), "what is to be restored")

    def _missing(self) -> Iterator[Entry]:
        return (entry for entry in entries(self._set) if entry.key not in self._there)

    @contextmanager
    def adding(self) -> Iterator[Callable[[], None]]:
        """Write the objects that are not there beside the block: nothing refers to them yet.

        Gives a function that waits until all are written, and that must be called before anything refers to them.

        Raises:
            UserError: from that function: the store refused one.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            adder = pool.submit(self._add, stop)

            def finish() -> None:
                with progress("adding artifacts", self._to_add, "objects") as step:
                    running = True
                    while running:
                        running = bool(wait([adder], 0.05).not_done)
                        step.at(self._written, size(self._bytes))
                adder.result()

            try:
                yield finish
            finally:
                stop.set()

    def _add(self, stop: threading.Event) -> None:
        for written in self._write(self._missing()):
            self._bytes += written
            if stop.is_set():
                return

    def replace_different(self) -> dict[str, Any]:
        """Write the objects that are there with another content, then look whether all are there.

        Returns:
            ``{"objects", "bytes", "written", "moved", "left"}``; ``moved`` counts locations in rows that were changed,
            ``left`` objects that the set does not name.

        Raises:
            UserError: the store refused one, or one is missing or has another size afterwards.
        """
        total = 0
        try:
            with progress("replacing artifacts", len(self._different), "objects") as step:
                for written in self._write(self._different):
                    total += written
                    step.add(1, size(total))
        except UserError as error:
            further = "the database is restored; run the restore again for the artifacts that are left"
            raise UserError(error.message, *error.hints, further) from None
        with _store_errors():
            now = {found.key: found.size for found in self._store.list()}
        for entry in entries(self._set):
            if now.get(entry.key) != entry.size:
                raise UserError(f"after the restore, object '{entry.key}' is missing or has another size")
        part = self._set.artifacts or {}
        objects = int(part.get("objects", 0))
        left = len(now) - objects
        if left:
            note(f"{left} objects that the backup does not name were left; see: invoke cleanup --dry-run")
        return {
            "objects": objects,
            "bytes": part.get("bytes", 0),
            "written": self._written,
            "moved": self.moved,
            "left": left,
        }

    def _compare(self, entry: Entry) -> tuple[Entry, bool]:
        found = self._there[entry.key]
        if found.size != entry.size:
            return entry, False
        if found.modified is not None and found.modified == entry.modified:
            return entry, True
        with _temporary() as copy:
            fetched = self._store.fetch(entry.key, copy)
        return entry, fetched is not None and fetched.sha256 == entry.sha256

    def _write(self, chosen: Iterable[Entry]) -> Iterator[int]:
        """Write objects; yield the bytes of each."""

        def put(entry: Entry) -> int:
            with self._set.artifact(entry) as path:
                self._store.put(path, entry.key, entry.modified)
            return entry.size

        with _store_errors():
            for written in in_parallel(_threads(self._store), put, chosen):
                self._written += 1
                yield written


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-") as name:
        yield Path(name) / "object"
