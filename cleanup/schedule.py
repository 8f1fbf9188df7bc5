"""``python -m cleanup.schedule "CRON" -- FLAGS``: run cleanup again and again, as a service of a stack.

Each run is a process of its own with ``--yes``, so that between two runs this one is small. It logs the
cleanup's own notes and one line with the result.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import arguments
import disks
from console import UsageError, UserError, note, user_errors
from verbs import Cleanup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType


# Files of room that is set aside, which a cleanup may use on a full disk: quoted as in a URL, with colons between.
RESERVES = "_MLFLOW_STACKS_RESERVES"


def reserves(environment: Mapping[str, str]) -> list[Path]:
    """The files that an environment names in `RESERVES`."""
    return [Path(unquote(name)) for name in environment.get(RESERVES, "").split(":") if name]


def next_time(cron: str, now: datetime) -> datetime:
    """Return the first minute after `now` that a schedule names.

    Args:
        cron: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday), as cron reads them: ``*``,
            ``*/n``, ``a-b``, numbers, names such as ``MON``, lists of those. Where both a day of the month and a day
            of the week are given, either is enough (cron(5); read by cronsim).
        now: in this machine's time zone, without naming it. So an hour that the clock repeats is not run twice, and
            what falls into an hour that it leaves out runs when that is over.

    Raises:
        UserError: not five such fields, or no such day ever comes.
    """
    from cronsim import CronSim, CronSimError

    hint = "five fields: minute hour day month weekday, for example '30 3 * * *' for every night at half past three"
    if len(cron.split()) != 5:
        raise UserError(f"cannot read the schedule '{cron}'", hint)
    try:
        return next(CronSim(cron, now))
    except CronSimError as error:
        raise UserError(f"cannot read the schedule '{cron}': {str(error).lower()}", hint) from None
    except StopIteration:
        raise UserError(f"the schedule '{cron}' never comes", hint) from None


def with_grace(flags: list[str]) -> list[str]:
    """Return a cleanup's flags, so that orphans get as old as what users deleted before they go.

    Whoever puts a deleted run back from a backup of last week finds its artifacts, too.

    Raises:
        UserError: they are no flags of a cleanup.
    """
    from cleanup.__main__ import filters_of
    from cleanup.filters import parse_age

    given = filters_of(arguments.read(flags, Cleanup))
    asked = any(flag.partition("=")[0] == "--orphan-grace" for flag in flags)
    if asked or not given.older_than or parse_age(given.older_than) <= parse_age(given.orphan_grace):
        return flags
    return [*flags, f"--orphan-grace={given.older_than}"]


class Service:
    """Waits and runs until it is told to stop."""

    def __init__(self, cron: str, flags: list[str], reserves: Sequence[Path] = ()) -> None:
        self._cron = cron
        self._flags = flags
        self._reserves = reserves
        self._stop = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """End the wait, or the run: SIGINT lets it end its batch."""
        self._stop.set()
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stop.is_set():
            then = next_time(self._cron, datetime.now())
            note(f"next cleanup at {then.astimezone():%Y-%m-%d %H:%M %Z}")
            while not self._stop.is_set() and (left := (then - datetime.now()).total_seconds()) > 0:
                self._stop.wait(min(30.0, max(0.05, left)))  # short waits, for the clock may be set
            if not self._stop.is_set():
                self.once()

    def once(self) -> int:
        """Run one cleanup and log what it did; return its exit code."""
        argv = [sys.executable, "-m", "cleanup", *self._flags, "--yes", "--json"]
        note(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} cleanup starts: {' '.join(self._flags)}")
        for path in filter(disks.give_up, self._reserves):
            note(f"{path.parent} has no room left: what was set aside for this is used now")
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        output, _ = self._process.communicate()
        for path in self._reserves:
            disks.set_aside(path, spare=0)
        summary = ""
        if output.strip():
            answer = json.loads(output)
            summary = json.dumps(
                {name: answer[name] for name in ("deleted", "artifacts", "left", "seconds") if name in answer}
            )
        note(
            f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} exit code {self._process.returncode} {summary}"
        )
        return self._process.returncode


def main(words: Sequence[str]) -> None:
    """Serve a schedule and the flags of a cleanup.

    Raises:
        UserError: the schedule cannot be read.
        UsageError: the flags are not a cleanup's, or it is none of the two.
    """
    if len(words) < 2 or words[1] != "--":
        raise UsageError(
            "a schedule takes five fields of cron in one word, --, and the flags of a cleanup",
            "for example: python -m cleanup.schedule '30 3 * * *' -- --older-than=30d",
        )
    cron, _, *given = words
    flags = with_grace(given)  # what is wrong is complained of now, not at half past three
    next_time(cron, datetime.now())
    service = Service(cron, flags, reserves(os.environ))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, service.stop)
    service.run()


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
