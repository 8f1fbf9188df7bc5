"""What a flag takes: from the text that somebody typed to a value that means something, or wrong usage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

UNITS = {"m": 60, "h": 3600, "d": 86400}  # seconds
MOST_SECONDS = 10**9  # some 30 years: whatever waits or counts back that long was mistyped
MOST = 10**9
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")  # of an address, file:/tmp too
LARGEST_ID = 2**63 - 1  # what a column of integers holds, sqlite.org/datatype3.html


@dataclass(frozen=True)
class Kind:
    """One kind of value.

    Attributes:
        metavar: the word that stands for it in help.
        takes: what it is, for ``--wait takes seconds, not 'abc'``.
        example: one that is right; empty where a made-up one would not help.
        parse: from text to value; raises ValueError.
        empty: what a flag of this kind has when it is not given.
    """

    metavar: str
    takes: str
    example: str
    parse: Callable[[str], Any]
    empty: Any = ""


def text(metavar: str, takes: str, example: str = "", pattern: str = "") -> Kind:
    """A text that is not blank, and matches `pattern` where one is given."""

    def parse(given: str) -> str:
        if not given.strip() or "\0" in given or (pattern and not re.fullmatch(pattern, given)):
            raise ValueError
        return given

    return Kind(metavar, takes, example, parse)


def path(metavar: str, takes: str, example: str = "", *, address: str = "") -> Kind:
    """A path of this machine, with the home folder that a ``~`` stands for (after a ``=`` no shell puts it in).

    Args:
        metavar: see `Kind`.
        takes: see `Kind`.
        example: see `Kind`.
        address: a pattern of the addresses that it may be instead; no other that names a scheme is taken for a folder.
    """

    def parse(given: str) -> str:
        known = bool(address and re.fullmatch(address, given))
        if not given.strip() or "\0" in given or (SCHEME.match(given) and not known):
            raise ValueError
        return str(at_home(given)) if given.startswith("~") else given

    return Kind(metavar, takes, example, parse)


def at_home(given: str) -> Path:
    """A path with the home folder that its ``~`` or ``~NAME`` stands for.

    Raises:
        ValueError: nobody has that home.
    """
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise ValueError("names the home folder of nobody here") from None


def parse_seconds(given: str) -> float:
    """Seconds, zero or more, as digits with or without a fraction.

    Raises:
        ValueError: anything else: a sign, ``nan``, ``inf``, or more than 30 years.
    """
    if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,9})?", given) or float(given) > MOST_SECONDS:
        raise ValueError
    return float(given)


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """What reads a whole number of at least `least` and at most `most`."""

    def parse(given: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", given) or not least <= int(given) <= most:
            raise ValueError
        return int(given)

    return parse


def parse_age(given: str) -> int:
    """The seconds in an age such as ``30m``, ``12h`` or ``30d``.

    Raises:
        ValueError: no number, no unit, or more than 30 years.
    """
    match = re.fullmatch(r"([0-9]{1,10})([mhd])", given.strip())
    if not match or int(match[1]) * UNITS[match[2]] > MOST_SECONDS:
        raise ValueError
    return int(match[1]) * UNITS[match[2]]


def _age(given: str) -> str:
    parse_age(given)
    return given.strip()


def parse_list(given: str) -> tuple[str, ...]:
    """Words with commas between, each once.

    Raises:
        ValueError: a word is empty (as an unset shell variable leaves it), or has a blank or what is no text in it.
    """
    words = [word.strip() for word in given.split(",")]
    if not all(word.isprintable() and word.split() == [word] for word in words):
        raise ValueError
    return tuple(dict.fromkeys(words))


def _numbers(given: str) -> tuple[str, ...]:
    words = parse_list(given)
    if not all(re.fullmatch(r"[0-9]{1,19}", word) and int(word) <= LARGEST_ID for word in words):
        raise ValueError
    return words


SWITCH = Kind("", "no value", "", bool, False)
SECONDS = Kind("SECONDS", "seconds", "60", parse_seconds, 0.0)
COUNT = Kind("N", "a whole number, 1 or more", "5", whole(1), 1)
LINES = Kind("N", "a whole number, 0 or more", "100", whole(0), 0)
PORT = Kind("PORT", "a port, 1 to 65535", "5555", whole(1, 65535), 0)
FILE = text("FILE", "a file")
FOLDER = text("FOLDER", "a folder")
AGE = Kind("AGE", "an age of 30 years at most: minutes, hours or days", "30d", _age)
IDS = Kind("IDS", "ids with commas between", "ID,ID", parse_list, ())
NUMBERS = Kind("IDS", "numbers with commas between", "1,2", _numbers, ())
WORDS = Kind("KINDS", "words with commas between", "", parse_list, ())
ANYTHING = Kind("URI", "an address, or nothing", "", str)
