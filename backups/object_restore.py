"""The artifacts of a set on their way back: what is missing first, what differs last."""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts import open_store
from artifacts.local import LocalStore
from backups.destination import artifacts_in, store_errors, threads
from backups.parallel import in_parallel
from backups.sets import entries
from console import UserError, note, progress, size
from database.address import redact
from files import require_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from backups.sets import BackupSet, Entry


class Restore:
    """Puts a set's objects back in two steps, so that the old database always finds its own."""

    def __init__(self, destination: str, backup: BackupSet) -> None:
        """Look what is there; changes nothing.

        Raises:
            UserError: the store cannot be read, or cannot hold an object's name, or it is a folder whose disk has no
                room for the set's objects.
        """
        self._set = backup
        self._written = self._bytes = 0  # objects of either step; bytes of those that were added
        self.moved = 0  # locations in rows
        with store_errors():
            self._store = open_store(destination)
            self._there = {there.key: there for there in artifacts_in(self._store)}
        self._refuse_strange_names()
        self._different: list[Entry] = []
        self._to_add = sum(1 for _ in self._entries())
        old = (entry for entry in self._entries() if entry.key in self._there)
        with store_errors(), progress("comparing artifacts", len(self._there), "objects") as step:
            for entry, same in in_parallel(threads(self._store), self._compare, old):
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

    @property
    def replaces(self) -> bool:
        """Whether an object that is there will get another content."""
        return bool(self._different)

    def _entries(self) -> Iterator[Entry]:
        """The set's objects; without the empty ones that some S3 tools make for a folder, where folders exist."""
        folders = isinstance(self._store, LocalStore)
        return (
            entry
            for entry in entries(self._set)
            if not (folders and entry.key.endswith("/") and not entry.size)
        )

    def _refuse_strange_names(self) -> None:
        strange = [entry.key for entry in self._entries() if not self._store.holds(entry.key)]
        if strange:
            shown = ", ".join(map(repr, strange[:3]))
            raise UserError(
                f"{redact(self._store.uri)} cannot hold {len(strange)} objects of the backup: {shown}",
                "their names are none there; restore to a store of the kind that was backed up:"
                f" {redact(str((self._set.artifacts or {})['source']))}",
                "nothing was changed",
            )

    def _missing(self) -> Iterator[Entry]:
        return (entry for entry in self._entries() if entry.key not in self._there)

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
        with store_errors():
            now = {there.key: there.size for there in artifacts_in(self._store)}
        count = 0
        for entry in self._entries():
            count += 1
            if now.get(entry.key) != entry.size:
                raise UserError(f"after the restore, object '{entry.key}' is missing or has another size")
        left = len(now) - count
        if left:
            note(f"{left} objects that the backup does not name were left; see: invoke cleanup --dry-run")
        return {
            "objects": count,
            "bytes": (self._set.artifacts or {}).get("bytes", 0),
            "written": self._written,
            "moved": self.moved,
            "left": left,
        }

    def _compare(self, entry: Entry) -> tuple[Entry, bool]:
        there = self._there[entry.key]
        if there.kind != "file" or there.size != entry.size:
            return entry, False
        if there.modified is not None and there.modified == entry.modified:
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

        with store_errors():
            for written in in_parallel(threads(self._store), put, chosen):
                self._written += 1
                yield written


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-") as name:
        yield Path(name) / "object"
