"""What kind a database is, is decided behind the protocol of the two kinds, and nowhere else."""

from __future__ import annotations

import ast
import subprocess

import pytest

from images.catalogue import ROOT

INSIDE = {f"database/{name}.py" for name in ("dialect", "sqlite", "sqlitefile", "postgresql")}
OURS = ("tests/", "benchmarks/", "develop/")  # of no use to a user; a test is about one kind, or about each
KINDS = {"sqlite", "postgresql"}
NAMING = {"get_backend_name", "get_dialect", "get_driver_name"}  # of SQLAlchemy's URL
DRIVERS = {"sqlite3", "psycopg2"}
CODE = [
    name
    for name in subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    if (ROOT / name).exists() and not name.startswith(OURS)
]


def decisions(source: str) -> list[str]:
    """The places in a source at which something depends on what kind a database is."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(source)) if _decides(node)]


def _decides(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        return any(_names_a_kind(side) for side in (node.left, *node.comparators))
    if isinstance(node, ast.MatchValue):
        return _names_a_kind(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        return node.func.attr in {"startswith", "endswith"} and _is_address(node.args[0])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        return any(isinstance(part, ast.Name) and part.id in DRIVERS for part in ast.walk(node.args[1]))
    return False


def _names_a_kind(node: ast.AST) -> bool:
    """A kind's name, `engine.dialect.name`, `url.get_backend_name()`, `url.drivername`, or a list with one in it."""
    if isinstance(node, ast.Constant):
        return node.value in KINDS
    if isinstance(node, ast.Tuple | ast.Set | ast.List):
        return any(_names_a_kind(item) for item in node.elts)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr in NAMING
    if not isinstance(node, ast.Attribute):
        return False
    if node.attr == "name":
        return isinstance(node.value, ast.Attribute) and node.value.attr == "dialect"
    return node.attr == "drivername"


def _is_address(node: ast.AST) -> bool:
    if isinstance(node, ast.Tuple):
        return any(_is_address(item) for item in node.elts)
    return isinstance(node, ast.Constant) and str(node.value).startswith(("sqlite", "postgres"))


def test_only_the_dialects_decide_by_what_kind_a_database_is() -> None:
    decided = {name: decisions((ROOT / name).read_text()) for name in CODE if name not in INSIDE}
    assert {name: places for name, places in decided.items() if places} == {}


@pytest.mark.parametrize(
    "source",
    [
        'if engine.dialect.name != "sqlite": pass',
        "if engine.dialect.name == kind: pass",
        'quick = url.get_backend_name() == "postgresql"',
        'if url.get_backend_name() not in ("sqlite", "mysql"): pass',
        'if uri.startswith("sqlite:///"): pass',
        'if uri.startswith(("postgres://", "postgresql://")): pass',
        'self._sqlite = plan.schema.dialect == "sqlite"',
        "if url.drivername == driver: pass",
        "if isinstance(connection, sqlite3.Connection): pass",
        "match kind:\n    case 'sqlite': pass",
    ],
)
def test_a_decision_is_seen(source: str) -> None:
    assert len(decisions(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        'address = f"sqlite:///{path}"',
        "if engine.dialect.language.one_writer: pass",
        'if image.name == "mlflow": pass',
        "except_ = (DBAPIError, sqlite3.Error)",
    ],
)
def test_what_is_no_decision_is_let_be(source: str) -> None:
    assert decisions(source) == []
