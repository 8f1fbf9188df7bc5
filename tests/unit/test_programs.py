"""What a stack starts reads its words: those of the rendered files, and what means nothing is refused."""

from __future__ import annotations

import re
import shlex
import signal
from typing import TYPE_CHECKING

import pytest
import yaml

import arguments
from cleanup import schedule
from console import UsageError
from images.catalogue import ROOT
from process import tether
from tests.support.programs import PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

GOLDEN = sorted((ROOT / "tests/unit/golden").glob("*/*"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_program_that_a_stack_starts_reads_its_words(path: Path) -> None:
    known = {request.verb.module[0]: request for request in PROGRAMS}
    if path.suffix == ".conf":
        commands = [
            shlex.split(line) for line in re.findall(r"^command=(.*)$", path.read_text(), re.MULTILINE)
        ]
    else:
        services = yaml.safe_load(path.read_text())["services"].values()
        commands = [service["command"] for service in services if "command" in service]
    for words in commands:
        if "process.tether" in words:
            assert tether._read(words[words.index("process.tether") + 1])[0] in {
                signal.SIGTERM,
                signal.SIGINT,
            }
        for module in known.keys() & set(words):
            if words[words.index(module) - 1] == "-m":
                arguments.read(words[words.index(module) + 1 :], known[module])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"signal": "NONE"}',
        '{"env": ["A=b"]}',
        '{"sginal": "INT"}',
        "--",
        '{"signal": 2}',
    ],
)
def test_a_tether_refuses_what_is_no_request(text: str) -> None:
    with pytest.raises(UsageError, match="no request"):
        tether._read(text)


def test_a_tether_reads_a_signal_and_files() -> None:
    assert tether._read("{}") == (signal.SIGTERM, {})
    assert tether._read(tether.EXAMPLE) == (signal.SIGINT, {"NAME": "FILE"})
    with pytest.raises(UsageError, match="words of a command"):
        tether.main(["{}"])


@pytest.mark.parametrize("words", [[], ["* * * * *"], ["* * * * *", "--older-than=30d"], ["--help"]])
def test_a_schedule_is_one_word_and_the_flags_of_a_cleanup(words: list[str]) -> None:
    with pytest.raises(UsageError, match="five fields"):
        schedule.main(words)
