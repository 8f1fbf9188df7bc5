"""A registry and basic auth in databases of their own, or in the tracking store's, are in the set and come back."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from backups import __main__ as command_line
from backups import sets
from backups.backup import back_up
from backups.databases import AUTH_CONFIG
from backups.migrate import migrate
from backups.plan import plan
from backups.restore import restore
from console import UserError
from database.connection import connect
from database.schema import prepare, read_schema
from tests.support import old_databases

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from database.revision import Step

KINDS = ["sqlite", "postgresql"]
VERSION = "3.15.1"


def ask(uri: str, query: str) -> list[Any]:
    engine = connect(uri)
    with engine.connect() as connection:
        answer = list(connection.exec_driver_sql(query).scalars())
    engine.dispose()
    return answer


def run(uri: str, *statements: str) -> None:
    engine = connect(uri, create=True)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def without_the_app() -> None:
    """Have the parts of mlflow.server.auth importable without its web app, which wants Flask-WTF."""
    import mlflow.server

    package = ModuleType("mlflow.server.auth")
    package.__path__ = [str(Path(mlflow.server.__file__).parent / "auth")]
    sys.modules.setdefault(package.__name__, package)


def make_users(uri: str, *names: str) -> None:
    """Have MLflow's own store of basic auth make its tables and users."""
    without_the_app()
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore()
    store.init_db(uri)
    for name in names:
        store.create_user(name, "a password of twelve", is_admin=True)
    store.engine.dispose()


def first_of_auth(engine: Engine) -> None:
    """Have MLflow make the tables of basic auth as they were at first."""
    without_the_app()
    from mlflow.server.auth.db import utils

    utils.migrate(engine, "8606fa83a998")
    engine.dispose()


def names(uri: str) -> list[str]:
    return sorted(ask(uri, "SELECT username FROM users"))


def versions(uri: str) -> int:
    return len(ask(uri, "SELECT version FROM model_versions"))


@pytest.fixture
def server(
    old_database: Callable[[str, str], str], new_uri: Callable[[str], str]
) -> Callable[[str], list[str]]:
    """Ask for the databases of a server: its tracking store, its registry, and that of basic auth."""

    def made(kind: str) -> list[str]:
        tracking, registry, auth = old_database(VERSION, kind), old_database(VERSION, kind), new_uri(kind)
        run(tracking, "DELETE FROM registered_model_aliases", "DELETE FROM model_version_tags")
        run(registry, "UPDATE registered_models SET description = 'of the registry'")
        make_users(auth, "ada", "böb")
        return [tracking, registry, auth]

    return made


@pytest.mark.parametrize("kind", KINDS)
def test_each_database_comes_back_to_where_its_flag_points(
    kind: str, server: Callable[[str], list[str]], new_uri: Callable[[str], str], tmp_path: Path
) -> None:
    tracking, registry, auth = server(kind)
    backup = back_up(tracking, tmp_path / "sets", further={"registry": registry, "auth": auth})
    assert backup.manifest["format"] == 3
    assert backup.databases["auth"]["rows"]["users"] == 2
    assert (
        backup.databases["auth"]["revision"] == ask(auth, "SELECT version_num FROM alembic_version_auth")[0]
    )
    assert backup.databases["registry"]["source"] != backup.database["source"]
    assert {part["file"].partition(".")[0] for part in backup.databases.values()} == {
        "database",
        "registry",
        "auth",
    }
    json.dumps(backup.as_json())

    to = [new_uri(kind) for _ in range(3)]
    with pytest.raises(
        UserError, match="holds the registry database, too, and no place was given"
    ) as refused:
        restore(to[0], backup.path, further={"auth": to[2]})
    assert "give --registry-store-uri=URI, or leave it out: --leave-out=registry" in refused.value.hints
    with pytest.raises(UserError, match="--auth-database-uri names a database that another one"):
        restore(to[0], backup.path, further={"registry": to[1], "auth": to[0]})
    with pytest.raises(UserError, match="holds experiments, and the backup has but users"):
        restore(to[0], backup.path, further={"registry": to[1], "auth": tracking})
    assert not any(name in ("runs", "users") for uri in to for name in tables(uri))

    further = {"registry": to[1], "auth": to[2]}
    lines = "\n".join(plan(to[0], backup.path, further=further).lines(None))
    assert "\n  registry  " in lines
    assert "\n  auth      " in lines
    answer = restore(to[0], backup.path, further=further).as_json()
    assert answer["databases"].keys() == {"registry", "auth"}
    assert names(to[2]) == ["ada", "böb"]
    assert versions(to[1]) == versions(registry)
    assert set(ask(to[1], "SELECT description FROM registered_models")) == {"of the registry"}
    assert set(ask(to[0], "SELECT description FROM registered_models")) != {"of the registry"}

    run(to[2], "UPDATE users SET username = 'eve' WHERE username = 'ada'")
    restore(to[0], backup.path, further={"registry": to[1]}, leave_out=["auth"])
    assert names(to[2]) == ["böb", "eve"]
    restore(to[0], backup.path, further=further)
    assert names(to[2]) == ["ada", "böb"]
    (backup.path / backup.databases["auth"]["file"]).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"damaged: auth\."):
        restore(to[0], backup.path, further=further)


def tables(uri: str) -> list[str]:
    from sqlalchemy import inspect

    engine = connect(uri, create=True)
    there = inspect(engine).get_table_names()
    engine.dispose()
    return there


@pytest.mark.parametrize("kind", KINDS)
def test_users_in_the_tracking_store_are_in_its_dump(
    kind: str, old_database: Callable[[str, str], str], new_uri: Callable[[str], str], tmp_path: Path
) -> None:
    uri = old_database(VERSION, kind)
    make_users(uri, "ada")
    backup = back_up(uri, tmp_path / "sets", further={"auth": uri, "registry": uri})
    assert backup.databases.keys() == {"tracking"}
    assert backup.manifest["format"] == 1
    assert backup.database["rows"]["users"] == 1
    shown = plan(uri, backup.path, further={"auth": uri})
    assert shown.targets[0].others.relations == ()
    run(uri, "DELETE FROM users")
    restore(uri, backup.path, further={"auth": uri})
    assert names(uri) == ["ada"]
    fresh = new_uri("postgresql")  # from a laptop, too
    restore(fresh, backup.path)
    assert names(fresh) == ["ada"]
    if kind == "sqlite":
        assert ask(fresh, "SELECT is_admin FROM users") == [True]
        assert read_schema(connect(fresh)).state == "current"


def test_a_laptops_users_go_to_a_server(new_uri: Callable[[str], str], tmp_path: Path) -> None:
    laptop, auth = new_uri("sqlite"), new_uri("sqlite")
    prepare(laptop)
    make_users(auth, "ada")
    backup = back_up(laptop, tmp_path / "sets", further={"auth": auth})
    tracking, there = new_uri("postgresql"), new_uri("postgresql")
    restore(tracking, backup.path, further={"auth": there})
    assert names(there) == ["ada"]
    assert "experiments" not in tables(there)
    make_users(there, "bob")  # MLflow goes on with it: its numbers go on, too


def old_users(path: Path, *, revision: str = "") -> str:
    """Make a database of basic auth at its first revision; before MLflow 3.6 no table said which."""
    first_of_auth(connect(f"sqlite:///{path}", create=True))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "INSERT INTO users (id, username, password_hash, is_admin) VALUES (1, 'ada', 'x', 1)"
        )
        database.execute("INSERT INTO experiment_permissions VALUES (1, '1', 1, 'MANAGE')")
        if not revision:
            database.execute("DROP TABLE alembic_version_auth")
    return f"sqlite:///{path}"


@pytest.mark.parametrize("revision", ["8606fa83a998", ""])
def test_an_older_database_of_basic_auth_is_backed_up_and_migrated(
    revision: str, new_uri: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = new_uri("sqlite")
    prepare(tracking)
    auth = old_users(tmp_path / "basic_auth.db", revision=revision)
    before = back_up(tracking, tmp_path / "sets", further={"auth": auth})
    assert before.databases["auth"]["rows"]["users"] == 1
    assert before.databases["auth"]["revision"] == (revision or None)
    words = [f"--backend-store-uri={tracking}", f"--auth-database-uri={auth}"]
    with pytest.raises(SystemExit, match="1"):
        command_line.main(["migrate", *words, "--check", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["state"] == "current"
    assert answer["databases"]["auth"]["state"] == "behind"
    with pytest.raises(SystemExit, match="0"):
        command_line.main(["migrate", *words, "--yes", "--json", f"--to={tmp_path / 'sets'}"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["backup"] is None
    assert answer["databases"]["auth"]["state"] == "current"
    assert answer["databases"]["auth"]["backup"]
    assert names(auth) == ["ada"]
    make_users(auth, "bob")  # as MLflow made it

    fresh = new_uri("sqlite")
    restored = restore(fresh, before.path, further={"auth": new_uri("postgresql")}, to_head=True)
    assert {schema.state for schema in restored.schemas.values()} == {"current"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_migration_of_users_that_fails_leaves_them_as_they_were(
    kind: str, new_uri: Callable[[str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    auth = new_uri(kind)
    first_of_auth(connect(auth, create=True))
    run(auth, "INSERT INTO users (id, username, password_hash, is_admin) VALUES (1, 'ada', 'x', TRUE)")
    before = dump(auth)

    def fail(done: int, _total: int, _step: Step) -> None:
        if done == 3:
            raise RuntimeError("made to fail")

    with pytest.raises(UserError, match=r"the migration failed at revision .*: made to fail"):
        migrate(auth, tmp_path / "sets", on_step=fail)
    assert dump(auth) == before
    assert migrate(auth, tmp_path / "sets").after.state == "current"


def test_the_servers_own_configuration_names_its_users(
    new_uri: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tracking, auth = new_uri("sqlite"), new_uri("sqlite")
    prepare(tracking)
    make_users(auth, "ada")
    config = tmp_path / "basic_auth.ini"
    config.write_text(f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {auth}\n")
    monkeypatch.setenv(AUTH_CONFIG, str(config))
    words = ["backup", f"--backend-store-uri={tracking}", f"--to={tmp_path / 'sets'}", "--json"]
    with pytest.raises(SystemExit, match="0"):
        command_line.main(words)
    assert json.loads(capsys.readouterr().out)["databases"]["auth"]["source"] == auth
    (backup,), _ = sets.list_sets(tmp_path / "sets")
    assert "auth of " in backup.line()
    config.write_text("[mlflow]\n")
    with pytest.raises(SystemExit, match="1"):
        command_line.main(words)
    assert "cannot read the database of basic auth from" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds no basic-auth tables of MLflow's"):
        back_up(
            tracking,
            tmp_path / "sets",
            further={"auth": old_databases.sqlite_database(VERSION, tmp_path / "x.db")},
        )


def test_what_a_registry_names_outside_the_destination_is_counted_and_moves(
    old_database: Callable[[str, str], str], new_uri: Callable[[str], str], tmp_path: Path
) -> None:
    tracking, registry = new_uri("sqlite"), old_database(VERSION, "sqlite")
    prepare(tracking)
    run(tracking, "UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
    run(
        registry,
        "UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'",
        "UPDATE runs SET artifact_uri = 'mlflow-artifacts:/0/r'",
        "UPDATE logged_models SET artifact_location = 'mlflow-artifacts:/0/m'",
        "DELETE FROM trace_tags",
        f"UPDATE model_versions SET source = '{tmp_path}/old/v', storage_location = NULL",
        "UPDATE model_versions SET source = 'file:///elsewhere' WHERE version = 1",
    )
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "v").write_bytes(b"model")
    outside = len(ask(registry, "SELECT version FROM model_versions WHERE version = 1"))
    backup = back_up(
        tracking, tmp_path / "sets", further={"registry": registry}, destination=str(tmp_path / "old")
    )
    assert backup.as_json()["artifacts"]["outside"] == {"versions": outside}
    restore(tracking, backup.path, further={"registry": registry}, destination=str(tmp_path / "new"))
    inside = {
        source for source in ask(registry, "SELECT source FROM model_versions") if "elsewhere" not in source
    }
    assert inside <= {f"{tmp_path}/new/v"}
