"""Where a database is, as people write it: read, and shown without its password."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from console import UserError

if TYPE_CHECKING:
    from sqlalchemy import URL

# SQLAlchemy 2.1 would choose psycopg 3 for PostgreSQL, and MLflow's job lock manager knows only psycopg2.
_DRIVERS = {
    **dict.fromkeys(
        ("postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"), "postgresql+psycopg2"
    ),
    **{name: name for name in ("sqlite", "sqlite+pysqlite")},
}


def redact(uri: str) -> str:
    """Return `uri` with any password in it replaced by ``***``."""
    uri = re.sub(r"(?<=://)([^/?@:]*):.*@", r"\1:***@", uri)
    return re.sub(r"(?i)(password=)[^&\s]+", r"\1***", uri)


def normalize(uri: str) -> URL:
    """Parse a backend store URI and name its driver.

    Raises:
        UserError: not a URI, or a database other than PostgreSQL and SQLite.
    """
    scheme = uri.partition("://")[0] if "://" in uri else ""
    if not scheme or scheme in {"file", "http", "https", "databricks"}:
        raise UserError(
            f"not a database URI: '{redact(uri)}'",
            "give postgresql+psycopg2://USER@HOST:5432/DATABASE or sqlite:////absolute/path/mlflow.db",
        )
    try:
        url = make_url(uri)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise UserError(
            f"cannot read the database URI '{redact(uri)}'",
            "percent-encode special characters in user and password, or keep the password in PGPASSFILE",
        ) from None
    if scheme not in _DRIVERS:
        raise UserError(
            f"no support for databases of kind '{backend}': '{redact(uri)}'",
            "supported: PostgreSQL (postgresql+psycopg2://) and SQLite (sqlite:///)",
        )
    return url.set(drivername=_DRIVERS[scheme])
