"""A process that is killed at one of the calls by which it changes what is on disk, whichever of them chance picks.

Killed by what it does and not by the clock, so that every try hits its work, on any machine, and costs no waiting.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.sharedctypes import Synchronized

TRIES = 20
# By the name that Python calls them with: files, SQLite's statements, programs, what supervisord is asked.
TOUCHING = frozenset(
    "open write pwrite fsync replace rename mkdir unlink rmdir link symlink ftruncate flock chmod fchmod sendfile "
    "copy_file_range execute executemany commit backup fork_exec _fork_exec sendall".split()
)

_ELSEWHERE = (str, bytes, io.StringIO)  # what has calls of those names, and is in memory alone


def arm(limit: int, counted: Callable[[], int]) -> None:
    """Have this process killed by SIGKILL right before the call that has the number `limit`; 0 only counts."""

    def watch(_frame: object, event: str, called: Any) -> None:
        if event != "c_call" or called.__name__ not in TOUCHING or isinstance(called.__self__, _ELSEWHERE):
            return
        if counted() == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(watch)
    sys.setprofile(watch)


def _run(
    limit: int, number: Synchronized[int], work: Callable[..., object], words: tuple[object, ...]
) -> None:
    def counted() -> int:
        number.value += 1
        return number.value

    arm(limit, counted)
    work(*words)
    sys.setprofile(None)


class Killer:
    """Runs a function in a process of its own, and kills it at a call; what it imports is loaded before.

    Args:
        modules: what the function needs, imported once for all tries.
        seed: of the choice of calls.
        tries: how many; a command that waits for services is dear.
    """

    def __init__(self, *modules: str, seed: int = 11, tries: int = TRIES) -> None:
        self.tries = tries
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(["tests.support.killed", *modules])
        self._chance = random.Random(seed)
        self.moments: list[int] = []

    def __call__(self, limit: int, work: Callable[..., object], *words: object) -> int:
        """Run it up to a call; returns the number of calls that it came to. It must end well, or by the kill."""
        number = self._forks.Value("i", 0, lock=False)
        process = self._forks.Process(target=_run, args=(limit, number, work, words))
        process.start()
        process.join(300)
        assert process.exitcode in ({0, -signal.SIGKILL} if limit else {0}), process.exitcode
        if process.exitcode:
            self.moments.append(limit)
        return int(number.value)

    def limits(self, calls: int) -> Iterator[int]:
        """Give calls to be killed at, one from each of as many equal parts of all calls as there are tries."""
        for turn in range(self.tries):
            yield 1 + int((turn + self._chance.random()) * calls / self.tries)

    def report(self, verb: str) -> None:
        """Hold that enough tries were hits, and note them."""
        print(
            f"{verb}: {len(self.moments)} of {self.tries} tries were killed at work, at the calls {self.moments}"
        )
        assert len(self.moments) >= self.tries / 2
