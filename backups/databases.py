"""The databases of one server by name: that of the tracking store, and those of registry and basic auth, if others.

MLflow's server takes a registry store of its own (``--registry-store-uri``), and its basic-auth app keeps users and
permissions where its configuration says (mlflow.server.auth.config): ``basic_auth.db`` in the server's folder unless
that names another. One database may serve several of them.
"""

from __future__ import annotations

import configparser
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from console import UserError
from database import catalog
from database.address import redact
from database.connection import connect
from database.dialect import dialect_of, maintenance_lock
from database.tables import has_auth, has_tracking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Engine

TRACKING, REGISTRY, AUTH = "tracking", "registry", "auth"
FLAGS = {TRACKING: "backend-store-uri", REGISTRY: "registry-store-uri", AUTH: "auth-database-uri"}
AUTH_CONFIG = "MLFLOW_AUTH_CONFIG_PATH"


def addresses(tracking: str, registry: str, auth: str) -> dict[str, str]:
    """Return URIs by name, of those that are not empty; basic auth's may stand in the server's own configuration.

    Raises:
        UserError: that configuration cannot be read.
    """
    auth = auth or _configured(os.environ.get(AUTH_CONFIG, ""))
    return {name: uri for name, uri in zip(FLAGS, (tracking, registry, auth), strict=True) if uri}


def _configured(path: str) -> str:
    """The database that a configuration of basic auth names, read as mlflow.server.auth.config does."""
    if not path:
        return ""
    config = configparser.ConfigParser()
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a name from the environment
            config.read_file(file)
        return config["mlflow"]["database_uri"]
    except (OSError, UnicodeDecodeError, KeyError, configparser.Error) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot read the database of basic auth from {path}: {reason}",
            f"{AUTH_CONFIG} names that file; or give --{FLAGS[AUTH]}=URI",
        ) from None


@contextmanager
def opened(uris: Mapping[str, str], *, create: bool = False) -> Iterator[dict[str, Engine]]:
    """Give engines by name; a database that serves several has the first of these names.

    Args:
        uris: by name.
        create: see `database.connection.connect`.

    Raises:
        UserError: one cannot be reached; says by which flag it was given.
    """
    engines: dict[str, Engine] = {}
    places = set[str]()
    with ExitStack() as stack:
        for name, uri in uris.items():
            try:
                engine = connect(uri, create=create)
            except UserError as error:
                if name == TRACKING:
                    raise
                raise UserError(error.message, *error.hints, f"it was given by --{FLAGS[name]}") from None
            stack.callback(engine.dispose)
            place = _place(engine)
            if place not in places:
                engines[name] = engine
                places.add(place)
        yield engines


def _place(engine: Engine) -> str:
    """What tells a database, and the schema in it, from every other one."""
    file = dialect_of(engine).file(engine.url)
    if file:
        return os.path.realpath(file)
    with engine.connect() as connection:
        return f"{catalog.identity(connection)} {catalog.current_schema(connection)}"


@contextmanager
def locked(engines: Mapping[str, Engine], purpose: str, wait_seconds: float) -> Iterator[Callable[[], None]]:
    """Hold the maintenance lock of each; gives what raises when one was lost. See `maintenance_lock`."""
    with ExitStack() as stack:
        locks = [
            stack.enter_context(maintenance_lock(engine, purpose, wait_seconds))
            for engine in engines.values()
        ]

        def check() -> None:
            for lock in locks:
                lock.check()

        yield check


def refuse_strangers(engines: Mapping[str, Engine]) -> None:
    """Refuse a registry or a database of basic auth that is none.

    Raises:
        UserError: a database lacks the tables of what it was given for.
    """
    for name, holds, what in ((REGISTRY, has_tracking, "registry"), (AUTH, has_auth, "basic-auth")):
        if name in engines and not holds(dialect_of(engines[name]).rows()):
            shown = redact(engines[name].url.render_as_string(hide_password=True))
            raise UserError(f"{shown} holds no {what} tables of MLflow's", f"check --{FLAGS[name]}")
