"""What the two kinds of database want said differently, for whoever works on the rows of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import ColumnElement, Connection, Select, Table
    from sqlalchemy.exc import DBAPIError


class Around(NamedTuple):
    """A thing about the tables of a schema that their reflection does not tell.

    Attributes:
        what: "partition": a table of this schema is one; "elsewhere": one of another schema refers to a table of this
            one; "deferred": one of this schema has a constraint, or what refers to it one, that is checked at the
            commit.
        schema: the other one, for "elsewhere".
        name: the table's; the constraint's for "deferred".
        readable: whether this role may read it.
    """

    what: Literal["partition", "elsewhere", "deferred"]
    schema: str
    name: str
    readable: bool


class Language(Protocol):
    """How one kind of database is spoken to. It keeps nothing: what it needs is given to it."""

    #: Whether one process at a time writes, and whoever does it for long keeps all others waiting.
    one_writer: ClassVar[bool]
    #: Whether no row can refer to one that is not there, where a foreign key says so.
    enforces_keys: ClassVar[bool]
    #: The word that has an index made or dropped while others write; empty where there is none.
    beside_writers: ClassVar[str]

    def among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Return the condition that a column is one of the values in the parameter `name`; see `parameter`.

        The statement's text, and with it the server's plan and our memory, do not depend on how many there are.
        """
        ...

    def parameter(self, values: list[Any]) -> object:
        """Return what a parameter of `among` takes."""
        ...

    def json_text(self, column: ColumnElement[Any], key: str) -> ColumnElement[Any]:
        """Return the text that a JSON object has under a key; null where the column holds no JSON or not the key."""
        ...

    def locking(self, query: Select[Any], table: Table) -> Select[Any]:
        """Return the query so that it keeps the rows of `table` from others until the transaction ends."""
        ...

    def begin_writing(self, connection: Connection, patience: int = 0) -> None:
        """Begin a transaction that is going to write.

        Args:
            connection: without one.
            patience: seconds that a statement of it waits for a lock; 0: as long as the connection does.
        """
        ...

    def patience(self, connection: Connection, seconds: int) -> AbstractContextManager[None]:
        """Have statements outside a transaction wait so many seconds for a lock, inside a block."""
        ...

    def passes(self, error: DBAPIError) -> bool:
        """Whether the same transaction may well succeed if it is tried again: others were in its way."""
        ...

    def missing_right(self, connection: Connection, needed: Sequence[tuple[str, str]]) -> str | None:
        """Return a right that this role needs and has not, such as "DELETE in runs", or None.

        Args:
            connection: without a transaction.
            needed: (right, table): ``DELETE``, ``UPDATE``.

        Raises:
            DBAPIError: nothing at all may be written.
        """
        ...

    def around(self, connection: Connection) -> list[Around]:
        """Return what reflection does not tell of the current schema."""
        ...

    def about_rows(self, connection: Connection, tables: set[str]) -> dict[str, int]:
        """Return about how many rows each table has, without counting them."""
        ...

    def indexes(self, connection: Connection, prefix: str) -> list[str]:
        """Return the indexes whose names begin with `prefix`, as they are written in SQL."""
        ...

    def home(self, connection: Connection) -> dict[str, Any]:
        """Return what tells where a database is from where a copy of it may be."""
        ...
