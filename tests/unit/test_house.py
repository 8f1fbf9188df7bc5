"""What holds for every file: no file of code is long, and no document points at what is not there."""

from __future__ import annotations

import importlib
import re
import subprocess

import pytest
import yaml

from benchmarks import run
from images.catalogue import ROOT

LIMIT = 400  # lines of a file of code
FILES = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.splitlines()


def test_no_file_of_code_is_long() -> None:
    code = [ROOT / name for name in FILES if name.endswith(".py") and (ROOT / name).exists()]
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in code}
    assert {name: lines for name, lines in long.items() if lines > LIMIT} == {}


ALONE = (
    "images/object-store/object_store.py"  # nothing else of ours is in its image; its command line is silo's
)


def test_a_parser_of_its_own_has_its_reason_beside_it() -> None:
    """Flags are declared in `flags.py` and read by `arguments.py`: whoever parses words otherwise says why."""
    parsing = {
        name: line.strip()
        for name in FILES
        if name.endswith(".py") and (ROOT / name).exists()
        for line in (ROOT / name).read_text().splitlines()
        if re.match(r"\s*(import|from) (argparse|optparse|getopt|click|typer)\b", line)
    }
    assert [name for name, line in parsing.items() if "  # " not in line] == [ALONE]
    tools = ("benchmarks/", "tests/")
    assert {name for name in parsing if not name.startswith(tools)} == {
        "arguments.py",
        "server/environment.py",
        ALONE,
    }


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".md")])
def test_a_document_links_only_to_what_is_there(name: str) -> None:
    document = ROOT / name
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.startswith(".") and name.endswith((".yml", ".yaml"))]
)
def test_what_a_forge_reads_is_yaml(name: str) -> None:
    assert yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("name", run.names())
def test_every_benchmark_can_be_run(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").run)
