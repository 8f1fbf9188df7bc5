"""What every place of backup sets can do, be it a folder or a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from artifacts import Store
    from artifacts.base import Fetched
    from backups.sets import BackupSet, Entry


class Keeper(Protocol):
    """Brings artifacts into a new set; used from several threads."""

    def link(self, old: Entry) -> bool:
        """Have the set hold what an earlier one holds; False when that is gone."""
        ...

    def keep(self, store: Store, key: str) -> tuple[Fetched, str] | None:
        """Copy an object; None when it is gone.

        Returns:
            What was copied, and the `sets.Entry.stored` of its entry.

        Raises:
            UnreadableError: see `artifacts.base.Store.fetch`.
        """
        ...


class Place(Protocol):
    """Where sets are."""

    def lock(self, purpose: str) -> AbstractContextManager[object]:
        """Keep others from writing here for the time of the block."""
        ...

    def sets(self) -> tuple[Sequence[BackupSet], Sequence[str]]:
        """Return the complete sets, oldest first, and a line for each thing that is none."""
        ...

    def draft(self) -> AbstractContextManager[Path]:
        """Give a folder for the parts of a new set, removed if the block fails."""
        ...

    def keeper(self, folder: Path, last: BackupSet | None) -> Keeper:
        """Return what brings artifacts into the set of a draft, after which `sets.entries` can read the last one."""
        ...

    def finish(self, folder: Path, manifest: dict[str, Any]) -> BackupSet:
        """Make the draft a set: the manifest is written last."""
        ...

    def prune(self, source: str, keep: int) -> None:
        """Remove all but the newest `keep` sets of one database."""
        ...

    def open(self, backup: BackupSet) -> BackupSet:
        """Return a set whose small parts are files."""
        ...
