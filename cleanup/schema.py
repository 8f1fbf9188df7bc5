"""The database's own account of what hangs on what, and the statements that follow from it.

`read` reflects tables and foreign keys (with their ON DELETE actions) and adds the by-value references of
`cleanup.references`. `Schema.closure` turns that into the ordered statements that remove some rows and
everything that depends on them, whichever of MLflow's schemas it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    MetaData,
    String,
    Table,
    and_,
    cast,
    delete,
    exists,
    func,
    inspect,
    or_,
    select,
    tuple_,
    update,
)

from cleanup.references import REFERENCES, SUSPICIOUS_COLUMNS, Action, Reference
from console import UserError
from database.dialect import dialect_of
from database.tables import is_mlflow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection, Engine

    from database.language import Language

IDS = "ids"  # the name of the parameter that holds the ids of one batch


@dataclass(frozen=True)
class Edge:
    """Rows of `child` whose `columns` equal `targets` of `parent`, and what becomes of them with it."""

    child: Table
    columns: tuple[str, ...]
    parent: Table
    targets: tuple[str, ...]
    action: Action
    reference: Reference | None = None

    @property
    def name(self) -> str:
        """``table.column`` for messages and reports."""
        return f"{self.child.fullname}.{','.join(self.columns)}"

    def condition(self) -> ColumnElement[bool]:
        """Return what makes a row of the child this kind of reference, apart from its value."""
        if self.reference is None:
            return and_(True, *(self.child.c[column].is_not(None) for column in self.columns))
        parts = [self.child.c[column] == value for column, value in self.reference.where.items()]
        if self.reference.json_key:
            parts.append(self.child.c[self.columns[0]].contains(f'"{self.reference.json_key}"'))
        else:
            parts.append(self.child.c[self.columns[0]].is_not(None))
        return and_(*parts)

    def values(self, language: Language) -> list[ColumnElement[Any]]:
        """Return the expressions of the child that equal the parent's target columns."""
        if self.reference is None:
            return [self.child.c[column] for column in self.columns]
        column = self.child.c[self.columns[0]]
        if self.reference.json_key is None:
            return [column]
        return [language.json_text(column, self.reference.json_key)]

    def keys(self, language: Language) -> list[ColumnElement[Any]]:
        """Return the parent's target columns, as text where the child keeps a number as text."""
        keys = []
        for value, name in zip(self.values(language), self.targets, strict=True):
            target: ColumnElement[Any] = self.parent.c[name]
            if self.reference and _is_text(value) and not _is_text(target):
                target = cast(target, String)
            keys.append(target)
        return keys

    def dangling(self, language: Language) -> ColumnElement[bool]:
        """Return the condition of rows whose parent does not exist."""
        pairs = zip(self.values(language), self.keys(language), strict=True)
        parent = self.parent.alias("target") if self.parent is self.child else self.parent
        kept = self.reference.tombstones if self.reference else ()
        return and_(
            self.condition(),
            *(value.not_in(kept) for value in self.values(language) if kept),
            *(value.is_not(None) for value in self.values(language)),
            ~exists(select(1).select_from(parent).where(*(value == key for value, key in pairs))),
        )


@dataclass(frozen=True)
class Statement:
    """One statement of a closure. Its parameter `IDS` takes the ids of the batch."""

    table: str
    action: Action
    sql: Any
    condition: ColumnElement[bool]


def _identity(statement: Statement) -> tuple[str, str]:
    """Return the text and the values: two references may differ in a value alone, RUN_INPUT and RUN_OUTPUT."""
    compiled = statement.sql.compile()
    return str(compiled), repr(sorted(compiled.params.items()))


def _ours(table: Table) -> bool:
    return table.schema is None and is_mlflow(table.name)


def _is_text(column: ColumnElement[Any]) -> bool:
    return isinstance(column.type, String) or column.type._type_affinity is String


def _suspicious(tables: Iterable[Table], edges: Collection[Edge]) -> list[str]:
    known = {(edge.child.fullname, column) for edge in edges for column in edge.columns}
    known |= {(reference.table, reference.column) for reference in REFERENCES}
    roots = {("runs", "run_uuid"), ("experiments", "experiment_id"), ("trace_info", "request_id")}
    roots |= {("logged_models", "model_id"), ("datasets", "dataset_uuid"), ("inputs", "input_uuid")}
    return sorted(
        f"{table.fullname}.{column.name}"
        for table in tables
        for column in table.columns
        if column.name in SUSPICIOUS_COLUMNS and (table.fullname, column.name) not in known | roots
    )


class Schema:
    """Tables and references of one database, as it is now.

    `edges` are the references between MLflow's own tables, `foreign` those that other tables have to them: from
    those tables nothing is ever deleted.
    """

    def __init__(self, metadata: MetaData, language: Language, *, deferred: bool = False) -> None:
        self.tables: dict[str, Table] = dict(metadata.tables)
        self.language = language
        #: whether some constraint is only checked at the commit
        self.deferred = deferred
        keys = list(self._keys())
        self.edges = (*(edge for edge in keys if _ours(edge.child)), *self._by_value())
        self.foreign = tuple(edge for edge in keys if not _ours(edge.child) and _ours(edge.parent))

    def has(self, table: str, *columns: str) -> bool:
        """Whether the table exists and has these columns."""
        return table in self.tables and all(column in self.tables[table].c for column in columns)

    def _keys(self) -> Iterable[Edge]:
        for table in self.tables.values():
            for key in table.foreign_key_constraints:
                action: Action = (
                    "null" if (key.ondelete or "").upper() in {"SET NULL", "SET DEFAULT"} else "delete"
                )
                columns = tuple(column.name for column in key.columns)
                targets = tuple(element.column.name for element in key.elements)
                yield Edge(table, columns, key.referred_table, targets, action)

    def _by_value(self) -> Iterable[Edge]:
        for reference in REFERENCES:
            if not self.has(reference.table, reference.column, *reference.where):
                continue
            if not self.has(reference.target):
                continue
            parent = self.tables[reference.target]
            target = reference.target_column or next(iter(parent.primary_key.columns)).name
            if not self.has(reference.target, target):
                continue
            child = self.tables[reference.table]
            yield Edge(child, (reference.column,), parent, (target,), reference.action, reference)

    def check_references(self, ignored: Collection[str] = ()) -> None:
        """Refuse a schema with a reference that deleting would leave dangling.

        Args:
            ignored: ``table.column`` names that the user vouches for.

        Raises:
            UserError: names the columns.
        """
        known = (*self.edges, *self.foreign)
        unknown = [name for name in _suspicious(self.tables.values(), known) if name not in set(ignored)]
        if unknown:
            raise UserError(
                f"this database refers to runs or experiments in a way not known here: {', '.join(unknown)}",
                "no foreign key says what should become of these rows, so nothing was planned or deleted",
                *(f"if they may keep ids that are gone: --ignore-reference={name}" for name in unknown),
            )

    def ids_in(self, column: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return the condition that `column` is one of the ids in the parameter `IDS`."""
        return self.language.among(column, IDS)

    def parameters(self, ids: list[Any]) -> dict[str, object]:
        """Return the parameters of a closure's statements for one batch of ids."""
        return {IDS: self.language.parameter(ids)}

    def closure(self, root: str, key: str, *, without: Collection[str] = ()) -> list[Statement]:
        """Return the statements that remove rows of `root` and all that depends on them, children first.

        A table that can be reached on several ways gets one statement for each: a condition with OR would
        use no index.

        Args:
            root: the table.
            key: the column of it that the ids of a batch are values of.
            without: tables that are left alone, and whatever hangs on them only.

        Raises:
            UserError: tables that refer to each other in a circle by keys that delete.
        """
        start = self.tables[root]
        conditions: dict[str, list[tuple[Action, tuple[str, ...], ColumnElement[bool]]]] = {}
        order: TopologicalSorter[str] = TopologicalSorter({root: ()})
        above: list[str] = []

        def visit(parent: Table, condition: ColumnElement[bool], column: str | None) -> None:
            if parent.name in above:
                circle = " -> ".join([*above, parent.name])
                raise UserError(
                    f"tables refer to each other in a circle: {circle}", "nothing was planned or deleted"
                )
            above.append(parent.name)
            for edge in self.edges:
                if edge.parent is not parent or edge.child.name in without or edge.child is parent:
                    continue
                inherited = self._inherit(edge, column)
                reached = self.ids_in(edge.child.c[inherited]) if inherited else self._below(edge, condition)
                if edge.reference:
                    reached = and_(edge.condition(), reached)
                order.add(parent.name, edge.child.name)
                conditions.setdefault(edge.child.name, []).append((edge.action, edge.columns, reached))
                if edge.action == "delete":
                    # a by-value condition cannot be handed down as a plain column condition
                    visit(edge.child, reached, None if edge.reference else inherited)
            above.pop()

        root_condition = self.ids_in(start.c[key])
        visit(start, root_condition, key)
        statements = []
        for name in order.static_order():
            for action, columns, condition in conditions.get(name, ()):
                statements.append(self._statement(self.tables[name], action, columns, condition))
        statements.append(self._statement(start, "delete", (), root_condition))
        return list({_identity(item): item for item in statements}.values())

    def blockers(
        self, statements: Iterable[Statement], ignored: Collection[str] = ()
    ) -> list[tuple[str, Any]]:
        """Return (``table.column``, query) of the references that tables of others have to what would be deleted.

        A query finds something if such a row is there. It takes the same parameter as the statements.

        Args:
            statements: of a `closure`.
            ignored: ``table.column`` names that the user vouches for; the database does with them what it was told.
        """
        below: dict[str, list[ColumnElement[bool]]] = {}
        for statement in statements:
            if statement.action == "delete":
                below.setdefault(statement.table, []).append(statement.condition)
        return [
            (
                edge.name,
                select(1).select_from(edge.child).where(self._below(edge, or_(*below[name]))).limit(1),
            )
            for edge in self.foreign
            if (name := edge.parent.name) in below and edge.name not in ignored
        ]

    def counts(self, statements: Iterable[Statement]) -> list[tuple[str, Any]]:
        """Return (table, query) that count the rows which the statements would delete, each row once."""
        conditions: dict[str, list[ColumnElement[bool]]] = {}
        for statement in statements:
            if statement.action == "delete":
                conditions.setdefault(statement.table, []).append(statement.condition)
        return [
            (name, select(func.count()).select_from(self.tables[name]).where(or_(*any_of)))
            for name, any_of in conditions.items()
        ]

    def _inherit(self, edge: Edge, column: str | None) -> str | None:
        """Return the child's column that takes the parent's condition over as it stands, if there is one."""
        if column is None or column not in edge.targets:
            return None
        if edge.reference and (edge.reference.json_key or self._needs_cast(edge)):
            return None
        return edge.columns[edge.targets.index(column)]

    def _needs_cast(self, edge: Edge) -> bool:
        return _is_text(edge.values(self.language)[0]) != _is_text(edge.parent.c[edge.targets[0]])

    def _below(self, edge: Edge, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        values = edge.values(self.language)
        keys = edge.keys(self.language)
        if len(values) == 1:
            return values[0].in_(select(keys[0]).where(condition))
        return tuple_(*values).in_(select(*keys).where(condition))

    @staticmethod
    def _statement(
        table: Table, action: Action, columns: tuple[str, ...], condition: ColumnElement[bool]
    ) -> Statement:
        sql: Any
        if action == "null":
            sql = update(table).where(condition).values(dict.fromkeys(columns))
        else:
            sql = delete(table).where(condition)
        return Statement(table.name, action, sql, condition)


def read(engine: Engine) -> Schema:
    """Reflect the database.

    Raises:
        UserError: it has no MLflow tables.
    """
    with engine.connect() as connection:
        return read_connection(connection)


def read_connection(connection: Connection) -> Schema:
    """Reflect the database of an open connection. See `read`."""
    metadata = MetaData()
    names = set(inspect(connection).get_table_names())
    if not names >= {"experiments", "runs"}:
        raise UserError(
            "this database holds no MLflow tables", "nothing was changed; check --backend-store-uri"
        )
    language = dialect_of(connection.engine).language
    around = language.around(connection)
    # what refers to one of MLflow's partitions, if any, refers to the table as well
    partitions = {name for what, _, name, _ in around if what == "partition"}
    metadata.reflect(connection, only=sorted(names - partitions), resolve_fks=True)
    for what, schema, name, readable in around:
        if what != "elsewhere":
            continue
        if not readable:
            raise UserError(
                f"{schema}.{name} refers to MLflow's tables, and this database role may not read it",
                f'let it: GRANT USAGE ON SCHEMA "{schema}" TO ...; GRANT SELECT ON "{schema}"."{name}" TO ...',
                "nothing was planned or deleted",
            )
        Table(name, metadata, schema=schema, autoload_with=connection)
    deferred = any(what == "deferred" for what, *_ in around)
    return Schema(metadata, language, deferred=deferred)
