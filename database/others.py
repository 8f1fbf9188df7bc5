"""What lies beside MLflow's tables, and is not ours to replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from console import UserError


class Key(NamedTuple):
    """A foreign key: its name, the table that has it, and the table that it refers to."""

    name: str
    table: str
    refers_to: str


@dataclass(frozen=True)
class Others:
    """What a database holds beside MLflow's own tables.

    Attributes:
        relations: kind (``TABLE``, ``VIEW``, ...) and name of each in MLflow's schema.
        keys: foreign keys of tables that are not MLflow's to tables that are.
        views: kind and name, quoted with its schema, of each view that reads a table of MLflow's, in an order in
            which they can be dropped.
        newer: tables that foreign keys tie to MLflow's, in a schema newer than `database.tables` knows: taken for
            MLflow's.
    """

    relations: tuple[tuple[str, str], ...] = ()
    keys: tuple[Key, ...] = ()
    views: tuple[tuple[str, str], ...] = ()
    newer: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what a person must know before MLflow's tables are replaced."""
        text = [f"  kept       {kind.lower()} {name}" for kind, name in self.relations]
        shown = {name for _, name in self.relations}
        text += [
            f"  kept       {kind.lower()} {name}"
            for kind, name in self.views
            if name.split(".")[-1] not in shown
        ]
        text += [f"  replaced   table {name}, taken for one of a newer MLflow" for name in self.newer]
        return text + [f"  in the way {self._key(key)}" for key in self.keys]

    def refuse_keys(self) -> None:
        """Refuse to go on while tables of others refer to MLflow's.

        Raises:
            UserError: they do; says which, and how to have them not.
        """
        if self.keys:
            first = self.keys[0]
            raise UserError(
                f"table {first.table} is not MLflow's and refers to {first.refers_to}:"
                " its rows would lose what they refer to",
                *(f"in the way: {self._key(key)}" for key in self.keys),
                "take the keys away first, and make them again afterwards; nothing was changed",
            )

    @staticmethod
    def _key(key: Key) -> str:
        return f"foreign key {key.name} of {key.table} to {key.refers_to}"
