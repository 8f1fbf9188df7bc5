"""What the state directory remembers of an upgrade under way, so that the next command can put back what ran before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from console import UserError
from stacks.state.record import JOURNAL

if TYPE_CHECKING:
    from pathlib import Path

Action = Literal["none", "migrate", "restore"]


@dataclass(frozen=True)
class Journal:
    """An upgrade under way.

    Attributes:
        before: the version that ran.
        after: the version that was to run.
        folder: of the backup sets.
        step: the one that was begun last.
        action: as in `Plan`.
        backup: the set of the data as it was; empty before there is one.
    """

    before: str
    after: str
    folder: str
    step: str
    action: Action
    backup: str = ""

    @property
    def data_changed(self) -> bool:
        """Whether the database may differ from the backup."""
        return self.action != "none" and self.step in {"migrate", "restore", "start", "smoke test"}

    @property
    def served(self) -> bool:
        """Whether the new version may have taken something from a client."""
        return self.step in {"start", "smoke test"}


def read(state: Path) -> Journal | None:
    """The journal in a state directory; None where no upgrade was cut off.

    Raises:
        UserError: there is one that cannot be read.
    """
    path = state / JOURNAL
    try:
        return Journal(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise UserError(
            f"an upgrade was cut off, and its journal cannot be read: {error}",
            f"it is {path}",
            f"to go on with what the last up left: mv {path} {path}.broken, then invoke up --stack={state.name}",
            "the data from before the upgrade is in the newest set: invoke backups",
        ) from None
