"""What holds for every file: none is long, local names say something, and no document points at what is not there."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from benchmarks import run
from images.catalogue import ROOT
from tests.support.sources import code

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 400  # lines of a file of code
FILES = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.splitlines()
# What a local name of these holds, only whoever wrote it knows.
SAYS_NOTHING = re.compile(
    r"found|one|done|thing|foo|stuff|te?mp\d*|res|ret|(?:data|item|obj|result|value|x)\d+"
)


def local_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The names that functions, lambdas and comprehensions bind, each with its line.

    What counts may say how many are ``done``: an ``int`` of that name is left out.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            if not (node.arg == "done" and node.annotation and ast.unparse(node.annotation) == "int"):
                yield node.lineno, node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.comprehension)):
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    yield part.lineno, part.id


def nameless(text: str) -> set[str]:
    """The local names of a file that say nothing."""
    names = local_names(ast.parse(text))
    return {f"{name} in line {line}" for line, name in names if SAYS_NOTHING.fullmatch(name)}


def test_no_file_of_code_is_long() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in code()}
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


def test_a_local_name_says_what_it_holds() -> None:
    files = {str(path.relative_to(ROOT)): nameless(path.read_text()) for path in code()}
    assert {name: places for name, places in files.items() if places} == {}


@pytest.mark.parametrize(
    "text",
    [
        "def f(one: str) -> None: ...",
        "def f() -> None:\n    found: list[str] = []",
        "def f() -> None:\n    for tmp2 in g(): ...",
        "NAMES = [one.name for one in g()]",
        "KEY = lambda done: done.name",
        "def f() -> None:\n    with g() as (first, res): ...",
    ],
)
def test_a_local_name_that_says_nothing_is_found(text: str) -> None:
    assert len(nameless(text)) == 1


def test_a_field_or_a_count_may_have_such_a_name() -> None:
    text = "class Finding:\n    found: str\n    def at(self, done: int) -> None: ...\n"
    assert nameless(text) == set()


def test_a_backup_set_at_its_default_place_is_no_code_of_ours() -> None:
    places = (f"backups/20261123T202151Z/artifacts/1/{name}" for name in ("a.py", "MLmodel"))
    ignored = subprocess.run(
        ["git", "check-ignore", *places, "backups/sets.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(ignored.stdout.splitlines()) == 2


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
