"""A message or a document names only tasks, flags, settings and variables that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest

import flags
from develop import reference
from flags import VARIABLES, Flag
from stacks.definition.settings import PREFIX, Settings
from tests.support.sources import ROOT, code
from verbs import VERBS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TASKS = {name: request.verb for name, request in VERBS.items() if request.verb.group}
OF_INVOKE = {"--list", "--help", "--debug", "--complete"}
SAYS = {"UserError", "UsageError", "StoreError", "note", "confirm", "Flag", "result"}
DOCUMENTS = (
    "*.md",
    "docs/*.md",
    "backups/*.md",
    ".env.example",
    "gateway/*.yaml",
    "stacks/**/*.toml",
    "**/*.j2",
)
HIDDEN = {"tests", ".venv", ".stacks"}
# A service that does not exist: what docs/adding-a-service.md makes of one stands in its own test.
TOY = {"MLFLOW_STACKS_HELLO_PORT"}


class Said(NamedTuple):
    """A text of ours: where it stands, what it says, and whether it is shown to somebody as it runs."""

    where: str
    text: str
    message: bool = False


def spoken(node: ast.AST) -> Iterator[str]:
    """Every text below a node; what an f-string fills in is ``…``."""
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        yield "".join(map(str, parts))
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from spoken(child)


def of_code(path: Path) -> Iterator[Said]:
    """The texts of a module, docstrings too; those of a message again, as such."""
    tree = ast.parse(path.read_text())
    where = str(path.relative_to(ROOT))
    yield from (Said(where, text) for text in spoken(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in SAYS:
                yield from (Said(f"{where}:{node.lineno}", text, True) for text in spoken(node))


@cache
def modules() -> list[Path]:
    """Every module but the tests."""
    return [path for path in code() if not HIDDEN & set(path.relative_to(ROOT).parts)]


@cache
def texts() -> list[Said]:
    """All that we say, but for the tests."""
    documents = sorted({path for glob in DOCUMENTS for path in ROOT.glob(glob)})
    documents = [path for path in documents if not HIDDEN & set(path.relative_to(ROOT).parts)]
    written = (Said(str(path.relative_to(ROOT)), path.read_text()) for path in documents)
    return [*chain.from_iterable(of_code(path) for path in modules()), *written]


def commands(text: str) -> Iterator[list[str]]:
    """The words after `invoke` of each command in a text."""
    for match in re.finditer(r"(?<![\w/.'-])invoke ((?:[^\s`\"');|,]|\\\n)+(?: (?:[^\s`\"');|,])+)*)", text):
        yield match[1].split()


def wrong_words(words: list[str]) -> Iterator[str]:
    """What in a command does not exist."""
    while words and words[0] in OF_INVOKE:
        words = words[1:]
    if not words or not re.fullmatch(r"[a-z][a-z-]*[.:]?", words[0]):
        return
    name = words[0].rstrip(".:")
    if name not in TASKS:
        yield f"task {name}"
        return
    own = {f"--{flag.name}": flag for flag in TASKS[name].of_task()}
    for word, after in pairwise([*words[1:], ""]):
        flag, _, value = word.rstrip(".:").partition("=")
        if not re.fullmatch(r"--[a-z][a-z-]+", flag):
            if not word.startswith("-"):
                continue
            yield f"{name} {flag}"
        elif flag not in own and flag not in OF_INVOKE:
            yield f"{name} {flag}"
        elif flag == "--set":
            yield from wrong_setting(value or after)


def wrong_setting(assignment: str) -> Iterator[str]:
    """A setting that does not exist."""
    name = assignment.partition("=")[0].replace("-", "_")
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) and name not in Settings.model_fields:
        yield f"setting {name}"


def report(places: dict[str, set[str]]) -> str:
    return "\n".join(f"{name}: {', '.join(sorted(where))}" for name, where in sorted(places.items()))


def test_every_command_that_is_named_can_be_typed() -> None:
    wrong: dict[str, set[str]] = {}
    seen = 0
    for said in texts():
        for words in commands(said.text):
            seen += 1
            for problem in wrong_words(words):
                wrong.setdefault(problem, set()).add(said.where)
    assert not wrong, report(wrong)
    assert seen > 150  # it finds them at all


def test_every_flag_that_a_message_names_is_one_of_a_task() -> None:
    """Or of a program of ours that is no task; those of others stand behind the name of the program."""
    known = {f"--{flag.name}" for request in VERBS.values() for flag in request.verb.flags} | OF_INVOKE
    known |= {f"--{flag.name}" for flag in vars(flags).values() if isinstance(flag, Flag)}
    wrong: dict[str, set[str]] = {}
    for said in texts():
        if said.message and not re.search(r"-m |wsl |docker |pip |apt-get |git |\bdf |\bls ", said.text):
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", said.text):
                if flag not in known:
                    wrong.setdefault(flag, set()).add(said.where)
    assert not wrong, report(wrong)


def test_every_setting_that_is_named_exists() -> None:
    wrong: dict[str, set[str]] = {}
    for said in texts():
        named = re.findall(r"--set[ =]([a-z0-9_-]+)=", said.text)
        named += re.findall(r"\bsettings? [`']([a-z][a-z0-9_]+)[`']", said.text)
        for problem in chain.from_iterable(wrong_setting(f"{name}=") for name in named):
            wrong.setdefault(problem, set()).add(said.where)
    assert not wrong, report(wrong)


def test_every_variable_that_is_named_is_a_setting_or_one_of_the_others() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | set(VARIABLES) | TOY
    wrong: dict[str, set[str]] = {}
    for said in texts():
        for name in re.findall(rf"(?<![\w]){PREFIX}[A-Z0-9][A-Z0-9_]*", said.text):
            if name not in known:
                wrong.setdefault(name, set()).add(said.where)
    assert not wrong, report(wrong)


def test_every_variable_that_is_no_setting_is_explained_where_settings_are() -> None:
    text = (ROOT / ".env.example").read_text()
    assert [name for name in VARIABLES if name not in text] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("try: invoke upp --stack=…", "task upp"),
        ("see: invoke status --verbose", "status --verbose"),
        ("`invoke up --set prot=5556`", "setting prot"),
        ("again: invoke cleanup --foreign-orphan", "cleanup --foreign-orphan"),
    ],
)
def test_what_does_not_exist_is_found(text: str, problem: str) -> None:
    assert [wrong for words in commands(text) for wrong in wrong_words(words)] == [problem]


def test_the_reference_is_what_the_programs_say() -> None:
    assert reference.FILE.read_text() == reference.written(), "renew it: python -m develop.reference"
