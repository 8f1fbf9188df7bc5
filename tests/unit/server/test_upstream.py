"""The table of what we lean on in MLflow: nothing of it is missing there, and nothing there is needless."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from develop import versions
from server import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(upstream.__file__).parents[1]
ROOMS = (
    "artifacts",
    "backups",
    "cleanup",
    "database",
    "gateway",
    "images",
    "process",
    "server",
    "services",
    "stacks",
)
# What MLflow documents as its own face: nothing of it is private.
PUBLIC = ("mlflow", "mlflow.exceptions", "mlflow.entities")
# Texts that stand otherwise in our code than in MLflow's.
OURS = {" not found ({": "not found ", 'attributes.get("connection"': 'attributes["connection"]'}
NAMES = {entry.name for entry in upstream.TABLE}
MODULES = {name.partition(":")[0] for name in NAMES}


def sources() -> Iterator[tuple[str, str]]:
    """Every file of the rooms but the table itself, and what it holds."""
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*")):
            if file.suffix in {".py", ".j2"} and file != Path(upstream.__file__):
                yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")


def used_names(text: str) -> Iterator[str]:
    """What a module imports from MLflow, or calls by a text such as "mlflow.parentRunId"."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mlflow":
            assert node.module
            if node.module not in PUBLIC:
                yield from (f"{node.module}:{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("mlflow."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"mlflow(\.[A-Za-z_]+)+", node.value):
                yield node.value
            yield from re.findall(r"\b_MLFLOW_(?!STACKS)[A-Z_]+[A-Z]", node.value)


def in_table(name: str) -> bool:
    """Whether an entry stands for a name; a module's attribute may be written with a dot."""
    module, _, attribute = name.rpartition(".")
    return name in NAMES or name in MODULES or f"{module}:{attribute}" in NAMES


def test_whatever_we_lean_on_stands_in_the_table() -> None:
    missing = {
        f"{file}: {name}"
        for file, text in sources()
        if file.endswith(".py")
        for name in used_names(text)
        if not in_table(name)
    }
    assert not missing, "give each an entry in server/upstream.py"


def test_nothing_in_the_table_is_needless() -> None:
    code = dict(sources())
    used = {name for file, text in code.items() if file.endswith(".py") for name in used_names(text)}
    constants = {
        value: name for name, value in vars(upstream).items() if name.isupper() and isinstance(value, str)
    }
    shown = {feature.shown_by for feature in upstream.FEATURES.values()}

    def needed(entry: upstream.Import | upstream.Text) -> bool:
        value = entry.value if isinstance(entry, upstream.Import) and entry.value else entry.name
        attribute = entry.name.rpartition(":")[2].rpartition(".")[2]
        words = (constants.get(value), OURS.get(entry.name), attribute, entry.name.rpartition("/")[2])
        is_called = any(word and word in text for text in code.values() for word in words)
        return entry.name in shown | set(upstream.OFFERS) or entry.name.replace(":", ".") in used or is_called

    assert not [entry.name for entry in upstream.TABLE if not needed(entry)]


def test_a_feature_came_with_what_shows_it() -> None:
    since = {entry.name: entry.since for entry in upstream.TABLE}
    for feature in upstream.FEATURES.values():
        assert since.get(feature.shown_by, feature.since) == feature.since, feature.name


def test_an_entry_holds_only_as_long_as_its_versions() -> None:
    there = {entry.name: expected for entry, expected in upstream.listed("3.5.1")}
    assert there["mlflow.server.jobs.utils:_launch_job_runner"]
    assert not there["mlflow.server.jobs.utils:_launch_job_execution_runner"]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (upstream.Import("mlflow.version:NOTHING", ""), "has no attribute 'NOTHING'"),
        (upstream.Import("mlflow.nothing:x", ""), "No module named"),
        (upstream.Import("mlflow.nothing", ""), "no such module"),
        (upstream.Import("mlflow.version:is_release_version", "", takes=3), "it takes"),
        (upstream.Import("mlflow.version:VERSION", "", value="1"), "it is '"),
        (upstream.Text("no such text", "version.py", ""), "it stands nowhere"),
        (upstream.Text("no such text", "nowhere.py", ""), "there is no nowhere.py"),
    ],
)
def test_what_is_not_as_the_table_says_is_told(entry: upstream.Import | upstream.Text, problem: str) -> None:
    assert problem in entry.problem()


def test_the_page_about_versions_says_what_the_code_knows() -> None:
    assert versions.DOCUMENT.read_text() == versions.document(), "python -m develop.versions writes it"
