"""What a cleanup did, told while it does it and afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cleanup.objects import Removal

UNDELETABLE = "its artifacts cannot be deleted"
SHOWN = 1000  # how many things that stay are named; all are counted


@dataclass(frozen=True)
class Skipped:
    """Something that was selected and stays: `kind`, `id`, `reason`."""

    kind: str
    id: str
    reason: str


class Progress(Protocol):
    """Who is told what was done."""

    def advance(self, *, kind: str, things: int, rows: int, objects: int, size: int) -> None:
        """Take in what one batch did."""


@dataclass
class Report:
    """What was done: `deleted` by kind, `rows` by table, `objects` and `bytes`; `skipped` names what stayed.

    `unnamed` counts what stayed beyond those, `failures` what stayed because its artifacts could not be
    deleted, `left` what the filters still select afterwards; `seconds` is how long it took.
    """

    deleted: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    bytes: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    unnamed: int = 0
    notes: list[str] = field(default_factory=list)
    failures: int = 0
    left: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def add(
        self,
        kind: str,
        things: int,
        rows: Counter[str],
        removal: Removal,
        skipped: dict[Any, str],
        refused: dict[Any, str],
    ) -> None:
        """Take down what one batch did.

        Args:
            kind: of what was deleted.
            things: how many.
            rows: how many rows, by table.
            removal: what went from the store.
            skipped: what stays by its id, and why.
            refused: what stays because the store refuses to delete its artifacts, and what the store says.
        """
        self.deleted[kind] += things
        self.rows.update(rows)
        self.objects += removal.objects
        self.bytes += removal.bytes
        self.failures += len(refused)
        why = {entity: f"{UNDELETABLE}: {reason}" for entity, reason in refused.items()}
        for entity, reason in (skipped | why).items():
            if len(self.skipped) < SHOWN:
                self.skipped.append(Skipped(kind, str(entity), reason))
            else:
                self.unnamed += 1
