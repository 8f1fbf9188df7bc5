"""Whatever SQLite holds is the same in PostgreSQL, in every column of every table, or nothing was changed."""

from __future__ import annotations

import datetime
import io
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import CheckConstraint, MetaData, select, text
from sqlalchemy.types import JSON, REAL, BigInteger, Boolean, Date, Integer, LargeBinary

from backups.backup import back_up
from backups.restore import restore
from console import UserError
from database import tablecopy
from database.connection import connect
from database.schema import prepare, read_schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Column, Engine, Table

    from develop.scratch.servers import Postgres

# the same number of distinct values of each type: row n of a table gets value n
TEXTS = [
    "",
    r"\N",
    r"\.",
    "a\tb\nc\rd\\",
    "\x01\b\v\f\x1b\x7f",
    "é𝄞\u2028\ufeff",
    "'\"`;--%s",
    "NULL",
    r"\x41",
    " ",
]
BIGINTS = [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 1_700_000_000_000, 2**31, -(2**31) - 1, 10**18]
INTEGERS = [0, 1, -1, 2**31 - 1, -(2**31), 7, 8, 9, 10, 11]
FLOATS = [0.0, -0.0, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), 0.1, -1e-300, 1e16, 2 / 3]
DOCUMENTS = [
    {"ä\n": [1, 2.5, None, "\\"]},
    [],
    {},
    "text",
    3,
    True,
    {"a": {"b": []}},
    [[]],
    "\t",
    {"n": 2**60},
]
BYTES = [bytes(range(256)), b"", b"\0", b"\\", b"\\x00", b"\n", b"\t", b"\xff" * 9, b"a", b"\\N"]


def value(column: Column[Any], number: int) -> Any:
    """Return value `number` for a column."""
    kind = column.type
    if column.primary_key and isinstance(kind, Integer) and column.table.name != "metrics":
        return number + 1
    if isinstance(kind, Boolean):
        return number % 2 == 0
    if isinstance(kind, Date):
        return datetime.date(1970 + 7 * number, 2, 28)
    for type_, values in (
        (JSON, DOCUMENTS),
        (BigInteger, BIGINTS),
        (Integer, INTEGERS),
        (LargeBinary, BYTES),
    ):
        if isinstance(kind, type_):
            return values[number]
    if "DOUBLE" in str(kind) or "FLOAT" in str(kind) or isinstance(kind, REAL):
        return FLOATS[number]
    length = getattr(kind, "length", None) or 10
    return TEXTS[number] if number != 5 else f"{TEXTS[5]:é<{length}}"  # one as long as may be


def fill(engine: Engine) -> int:
    """Put rows of edge cases into every table; returns how many."""
    metadata = MetaData()
    metadata.reflect(engine)
    made: dict[str, list[dict[str, Any]]] = {}
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if table.name == "alembic_version":
                continue
            connection.execute(table.delete())
            made[table.name] = [row(table, number, made) for number in range(len(TEXTS))]
            connection.execute(table.insert(), made[table.name])
    return sum(map(len, made.values()))


def row(table: Table, number: int, made: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a row that refers to the rows of the same number."""
    values = {}
    checks = " ".join(str(check.sqltext) for check in table.constraints if isinstance(check, CheckConstraint))
    for column in table.columns:
        if column.computed is not None:
            continue
        parents = [key.column for key in column.foreign_keys if key.column.table.name in made]
        if parents:
            values[column.name] = made[parents[0].table.name][number][parents[0].name]
        elif allowed := re.search(rf"{column.name}\"? IN \('(\w+)'", checks):
            values[column.name] = allowed[1]
        else:
            values[column.name] = value(column, number)
    return values


def content(engine: Engine) -> dict[str, list[str]]:
    """Return every value of every table, as text that keeps -0.0 and the types apart."""
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: sorted(
                repr([(key, bytes(v) if isinstance(v, memoryview) else v) for key, v in sorted(r.items())])
                for r in connection.execute(select(table)).mappings()
            )
            for table in metadata.sorted_tables
        }


def test_every_column_of_every_table_keeps_its_value(new_uri: Callable[[str], str], tmp_path: Path) -> None:
    laptop, target = new_uri("sqlite"), new_uri("postgresql")
    prepare(laptop)
    prepare(target)
    rows = fill(connect(laptop, foreign_keys=False))
    restore(target, back_up(laptop, tmp_path / "sets").path)
    before, after = content(connect(laptop)), content(connect(target))
    assert before.keys() == after.keys()
    assert {table: before[table] for table in before if before[table] != after[table]} == {}
    assert sum(map(len, after.values())) == rows + 1
    with connect(target).connect() as connection:  # numbers go on after the highest
        query = (
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' AND"
        )
        numbered = connection.execute(
            text(f"{query} (is_identity = 'YES' OR column_default LIKE 'nextval%')")
        ).all()
        assert ("experiments", "experiment_id") in numbered
        for table, column in numbered:
            sequence = f"pg_get_serial_sequence('{table}', '{column}')"
            both = text(f"SELECT nextval({sequence}), (SELECT max({column}) FROM {table})")
            following, highest = connection.execute(both).one()
            assert following == highest + 1


@pytest.fixture(scope="module")
def any_text(postgres: Postgres) -> Engine:
    engine = connect(postgres.create("texts"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE texts (number bigint, t text, f float8, b bytea)")
    return engine


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            st.floats(),
            st.binary(),
        )
    )
)
def test_any_text_number_and_bytes_arrive(any_text: Engine, rows: list[tuple[str, float, bytes]]) -> None:
    numbered = [(number, *row) for number, row in enumerate(rows)]
    with any_text.begin() as connection:
        connection.exec_driver_sql("TRUNCATE texts")
        cursor: Any = connection.connection.cursor()
        cursor.copy_expert("COPY texts FROM STDIN", io.StringIO("".join(tablecopy._lines(numbered))))
        arrived = connection.exec_driver_sql("SELECT * FROM texts ORDER BY number").all()
    assert repr([(n, t, f, bytes(b)) for n, t, f, b in arrived]) == repr(numbered)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE params SET value = 'nul ' || char(0) || ' inside'", "invalid byte sequence|0x00|NUL"),
        (f"UPDATE runs SET name = '{'x' * 300}'", "value too long"),
        ("UPDATE metrics SET run_uuid = 'nobody' WHERE rowid = 3", "foreign key constraint"),
        ("UPDATE params SET value = CAST(x'ff41' AS TEXT)", "decode to UTF-8"),
    ],
)
def test_what_postgresql_cannot_hold_is_said_and_nothing_is_changed(
    statement: str,
    reason: str,
    old_database: Callable[[str, str], str],
    postgres: Postgres,
    tmp_path: Path,
) -> None:
    laptop, target = old_database("3.15.1", "sqlite"), old_database("3.10.1", "postgresql")
    with closing(sqlite3.connect(laptop.removeprefix("sqlite:///"), isolation_level=None)) as database:
        database.execute(statement)
    backup = back_up(laptop, tmp_path / "sets")
    before = postgres.dump(target.rpartition("/")[2])
    with pytest.raises(UserError, match=reason):
        restore(target, backup.path)
    assert postgres.dump(target.rpartition("/")[2]) == before
    assert read_schema(connect(target)).state == "behind"
