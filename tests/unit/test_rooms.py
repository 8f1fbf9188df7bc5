"""Who may import whom: the picture in docs/architecture.md as a table, held against every import there is.

Imports count wherever they stand: inside functions and under TYPE_CHECKING, too. A room is a folder or a file at the
top; `stacks` is a house in the house, with a room for each storey.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.support.sources import ROOT, code

if TYPE_CHECKING:
    from pathlib import Path

STOREYS = ("stacks", "tests", "develop")  # their folders are rooms

GROUND = {"disks", "console", "files", "process"}
DATA = GROUND | {"artifacts", "database"}
RUN = DATA | {"gateway", "services", "server"}
FLAGS = {"values", "flags", "verbs", "arguments"}
STACKS = ["stacks.catalogue", "stacks.definition", "stacks.state", "stacks.engines", "stacks.verbs"]
PRODUCT = RUN | FLAGS | {"backups", "cleanup", "images", "version", *STACKS}
SCRATCH = {"develop.scratch"}

# Each room and what it may import beside itself.
MAY: dict[str, set[str]] = {
    "version": set(),
    "disks": set(),
    "console": {"disks"},
    "files": {"disks", "console"},
    "process": {"disks", "console", "files"},
    "values": set(),
    "flags": {"console", "values"},
    "verbs": {"console", "flags"},
    "arguments": {"console", "flags", "verbs"},
    "commandline": {"console", "process", "flags", "verbs", "arguments"},
    "artifacts": GROUND,
    "database": GROUND | FLAGS | {"artifacts"},
    "gateway": DATA | FLAGS,
    "services": DATA | FLAGS,
    "server": DATA | {"gateway"},
    "backups": DATA | FLAGS | {"version"},
    "cleanup": DATA | FLAGS | {"version"},
    "images": GROUND | {"version"},
    "stacks.catalogue": GROUND,
    "stacks.definition": GROUND | {"values", "flags", "server", "stacks.catalogue"},
    "stacks.state": RUN | {"version", "images", *STACKS[:2]},
    "stacks.engines": RUN | {"version", "images", *STACKS[:3]},
    "stacks.verbs": RUN | FLAGS | {"version", "images", "backups", "cleanup", *STACKS[:4]},
    "develop": PRODUCT,
    "develop.scratch": {"process", "stacks.definition"},
    "benchmarks": PRODUCT | SCRATCH,
    "tasks": PRODUCT | {"develop", "benchmarks", "commandline"},
    "tests.support": PRODUCT | SCRATCH | {"tests.databases"},
    "tests.databases": SCRATCH,
    "tests.released": SCRATCH | {"tests.support"},
    **dict.fromkeys(
        ("tests", "tests.unit", "tests.host", "tests.docker"),
        PRODUCT
        | SCRATCH
        | {"develop", "benchmarks", "tasks", "commandline", "tests.support", "tests.databases"},
    ),
}

# What is being mended, as (importer, imported): empty, but while somebody is at it.
EXCEPTIONS: set[tuple[str, str]] = set()


@cache
def modules() -> dict[str, Path]:
    """Every module of the repository by its name."""
    names = (path.relative_to(ROOT).with_suffix("").parts for path in code())
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): path
        for parts, path in zip(names, code(), strict=True)
    }


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports of the repository."""
    return {name: _imported(path) & set(modules()) - {name} for name, path in modules().items()}


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (parts & set(modules())) or {str(node.module)}
    return names


def room(module: str) -> str:
    """The room that a module is in."""
    first, *rest = module.split(".")
    inner = ".".join((first, *rest[:1]))
    return inner if first in STOREYS and inner in MAY else first


@pytest.mark.parametrize("name", sorted({room(name) for name in modules()}))
def test_a_room_imports_only_what_is_below_it(name: str) -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, several in imports().items()
        for imported in several
        if room(module) == name and room(imported) not in {name} | MAY[name]
        if (module, imported) not in EXCEPTIONS
    ]
    assert wrong == []


def test_no_two_files_import_each_other() -> None:
    assert circles(imports()) == []


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The groups of modules that reach each other (Tarjan's strongly connected components, by reachability)."""
    graph = {
        name: {other for other in several if (name, other) not in EXCEPTIONS}
        for name, several in graph.items()
    }
    reached: dict[str, set[str]] = defaultdict(set)
    for start in graph:
        waiting = list(graph[start])
        while waiting:
            name = waiting.pop()
            if name not in reached[start]:
                reached[start].add(name)
                waiting += graph[name]
    groups = {frozenset({other for other in reached[name] if name in reached[other]}) for name in graph}
    return [set(group) for group in groups if group]


def test_no_test_and_no_conftest_is_imported_as_a_library() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, several in imports().items()
        for imported in several
        if imported.rpartition(".")[2].startswith(("test_", "conftest"))
    ]
    assert wrong == []


def test_an_exception_is_still_one() -> None:
    assert [pair for pair in EXCEPTIONS if pair[1] not in imports().get(pair[0], set())] == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
