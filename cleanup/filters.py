"""What the user asked for."""

from __future__ import annotations

from dataclasses import dataclass

import values
from console import UsageError
from flags import ONLY

KINDS = ONLY.choices


def parse_age(text: str) -> int:
    """Return the seconds in an age such as ``30m``, ``12h`` or ``30d``.

    Raises:
        UsageError: no number, no unit, or more than 30 years.
    """
    try:
        return values.parse_age(text)
    except ValueError:
        raise UsageError(
            f"cannot read the age '{text}'",
            "write a number and a unit, 30 years at most: 30m (minutes), 12h (hours), 30d (days)",
        ) from None


@dataclass(frozen=True)
class Filters:
    """Which of the deleted things go, and what else is allowed.

    Args:
        only: kinds out of `KINDS`. None: what the ids name, or without ids all but
            ``traces`` and ``jobs``.
        older_than: least age of the deletion (of the trace itself for ``traces``), as in `parse_age`.
        run_ids: exactly these runs, at least one. None: no matter which.
        experiment_ids: exactly these experiments, with all that is in them; as `run_ids`.
        include_undated: also what has no deletion time.
        force_registered: also what a registered model version refers to.
        orphan_grace: least age of an orphaned artifact's newest object and of an orphaned association.
        claim: take the destination for this database's alone from now on: see `database.ownership`.
        ignore_references: ``table.column`` names that may be left dangling.

    Raises:
        UsageError: an unknown kind, an age without a unit, or filters that contradict each other.
    """

    only: tuple[str, ...] | None = None
    older_than: str | None = None
    run_ids: tuple[str, ...] | None = None
    experiment_ids: tuple[str, ...] | None = None
    include_undated: bool = False
    force_registered: bool = False
    orphan_grace: str = "1d"
    claim: bool = False
    ignore_references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = sorted(set(self.only or ()) - set(KINDS))
        if unknown:
            raise UsageError(f"nothing of the kind '{unknown[0]}' to clean up", f"kinds: {', '.join(KINDS)}")
        if self.older_than is not None:
            parse_age(self.older_than)
        parse_age(self.orphan_grace)
        if "traces" in self.kinds and self.older_than is None:
            raise UsageError(
                "traces are never in a deleted stage: say how old they must be",
                "for example: --only=traces --older-than=90d",
            )
        if self.run_ids and self.kinds - {"runs", "experiments"}:
            raise UsageError(
                "--run-ids names runs, so --only cannot ask for other kinds",
                f"leave one of the two out; asked for: {', '.join(sorted(self.kinds))}",
            )
        for kind in sorted({"orphans", "jobs"} & self.kinds):
            if self.experiment_ids:
                raise UsageError(
                    f"{kind} belong to no experiment", f"leave out --experiment-ids, or {kind} in --only"
                )
        for ids, flag in ((self.run_ids, "--run-ids"), (self.experiment_ids, "--experiment-ids")):
            if ids is not None and not ids:
                raise UsageError(
                    f"{flag} names nothing", "an empty variable, perhaps; all is asked for without it"
                )
        bad = [item for item in self.experiment_ids or () if not item.isdecimal()]
        if bad:
            raise UsageError(f"an experiment's id is a number, not '{bad[0]}'")

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that are asked for."""
        if self.only:
            return frozenset(self.only)
        if self.run_ids or self.experiment_ids:
            named = (("runs", self.run_ids), ("experiments", self.experiment_ids))
            return frozenset(kind for kind, ids in named if ids)
        return frozenset({"runs", "experiments", "models", "orphans"})
