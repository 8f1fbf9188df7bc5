"""A restore replaces MLflow's tables; what lies beside them is named, stays, or is in the way and says so."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from backups import sets
from backups.backup import back_up
from backups.in_folder import Folder
from backups.manifest import signed
from backups.plan import plan
from backups.restore import restore
from console import UserError
from database import replacing
from database.connection import connect
from database.schema import prepare
from files import sha256
from tests.support import old_databases

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ["sqlite", "postgresql"]
ANOTHER = (
    "CREATE TABLE pins (id INTEGER PRIMARY KEY, note VARCHAR(50))",
    "CREATE TABLE users (name VARCHAR(50))",  # MLflow's basic auth has one, too; not here
    "CREATE INDEX pin_notes ON pins (note)",
    "CREATE VIEW last_runs AS SELECT name FROM runs",
    "CREATE VIEW their_pins AS SELECT note FROM pins",
)


def run(uri: str, *statements: str) -> None:
    with connect(uri).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def ask(uri: str, query: str) -> list[Any]:
    with connect(uri).connect() as connection:
        return list(connection.exec_driver_sql(query).scalars())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["older", "newer"])
def test_tables_and_views_of_others_stay(
    kind: str, target: str, old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    uri = old_database("3.10.1", kind)
    backup = back_up(uri, tmp_path / "sets")
    names = ask(uri, "SELECT name FROM runs ORDER BY name")
    if target == "newer":
        from backups.migrate import migrate

        migrate(uri, tmp_path / "sets")
    run(uri, *ANOTHER, "INSERT INTO pins VALUES (7, 'mine')", "DELETE FROM tags", "DELETE FROM params")
    shown = plan(uri, backup)
    assert {name for _, name in shown.targets[0].others.relations} == {
        "pins",
        "users",
        "last_runs",
        "their_pins",
    }
    lines = "\n".join(shown.lines(None))
    assert "kept       table pins" in lines
    assert "kept       view last_runs" in lines
    result = restore(uri, backup.path)
    assert result.rows == sum(backup.database["rows"].values())
    assert ask(uri, "SELECT note FROM pins") == ["mine"]
    assert sorted(ask(uri, "SELECT name FROM last_runs")) == names
    assert ask(uri, "SELECT note FROM their_pins") == ["mine"]
    assert plan(uri, backup).targets[0].others == shown.targets[0].others
    second = back_up(uri, tmp_path / "sets")
    assert "pins" not in second.database["rows"]
    restore(uri, second.path)
    assert ask(uri, "SELECT note FROM pins") == ["mine"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_others_is_in_the_way_and_named(
    kind: str, old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = old_database("3.10.1", kind)
    backup = back_up(uri, tmp_path / "sets")
    run(uri, "CREATE TABLE pins (run VARCHAR(32) REFERENCES runs (run_uuid))", "INSERT INTO pins SELECT NULL")
    before = dump(uri)
    assert "in the way foreign key" in "\n".join(plan(uri, backup).lines(None))
    with pytest.raises(UserError, match="table pins is not MLflow's and refers to runs") as error:
        restore(uri, backup.path)
    assert "in the way: foreign key" in str(error.value)
    assert dump(uri) == before


def test_a_set_of_a_whole_schema_brings_back_mlflows_part_of_it(
    old_database: Callable[[str, str], str],
    new_uri: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Versions of ours before this one had other people's tables in the dump."""
    from database import catalog
    from database.others import Others

    uri = old_database("3.10.1", "postgresql")
    run(
        uri,
        *ANOTHER,
        "CREATE TYPE mood AS ENUM ('well')",
        "CREATE SEQUENCE numbers",
        "COMMENT ON TABLE pins IS 'x'",
    )
    run(
        uri,
        "CREATE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "INSERT INTO pins VALUES (1, 'then')",
    )
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "others", lambda _: Others())
        backup = back_up(uri, tmp_path / "sets")
    run(uri, "UPDATE pins SET note = 'now'", "DELETE FROM tags")
    restore(uri, backup.path)
    assert ask(uri, "SELECT note FROM pins") == ["now"]
    assert len(ask(uri, "SELECT key FROM tags")) == backup.database["rows"]["tags"]
    fresh = new_uri("postgresql")
    restore(fresh, backup.path)
    assert ask(fresh, "SELECT note FROM pins") == ["then"]  # nobody else's is there


def test_a_script_loses_what_only_its_own_server_knows_and_no_row() -> None:
    row = b"ALTER TABLE ONLY public.x ALTER COLUMN y SET (pg_attver=1);"
    text = (
        b"-- Name: runs; Type: TABLE; Schema: public; Owner: me\nCREATE TABLE public.runs ();\n"
        b"ALTER TABLE ONLY public.runs ALTER COLUMN name SET (pg_attver=1);\n"
        b"-- Name: pins; Type: TABLE; Schema: public; Owner: me\nCREATE TABLE public.pins ();\n"
        b"-- Data for Name: pins; Type: TABLE DATA; Schema: public; Owner: me\n"
        b"COPY public.pins (id) FROM stdin;\n1\n\\.\n\n"
        b"-- Data for Name: runs; Type: TABLE DATA; Schema: public; Owner: me\n"
        b"COPY public.runs (name) FROM stdin;\n" + row + b"\n-- Name: pins; Type: TABLE; Schema: x\n\\.\n\n"
        b"COPY public.tags (name) FROM stdin;\n\\.\n"
        b"-- Name: by_note; Type: INDEX; Schema: public; Owner: me\n"
        b"CREATE INDEX by_note ON public.pins USING btree (id);\n"
        b"-- Name: by_name; Type: INDEX; Schema: public; Owner: me\n"
        b"CREATE INDEX by_name ON public.runs USING btree (name);\n"
    )
    for step in (1, 2, 3, 7, 1000):
        chunks = (text[start : start + step] for start in range(0, len(text), step))
        passed = b"".join(replacing.Script(["pins"]).passed(chunks))
        assert passed.count(b"pg_attver") == 1
        assert row in passed
        assert b"public.pins" not in passed
        assert b"by_name ON public.runs" in passed
        assert b"COPY public.tags (name) FROM stdin;\n\\.\n" in passed
        assert passed.endswith(b"(name);\n")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_replaced_is_backed_up_first(
    kind: str, old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    store = tmp_path / "artifacts"
    store.mkdir()
    (store / "model").write_bytes(b"then")
    uri = old_database("3.15.1", kind)
    backup = back_up(uri, tmp_path / "sets", destination=str(store))
    run(uri, "DELETE FROM tags")
    (store / "model").write_bytes(b"now!")
    before = dump(uri)
    restore(uri, backup.path, destination=str(store), save_to=Folder(tmp_path / "sets"))
    assert (store / "model").read_bytes() == b"then"
    saved = sets.list_sets(tmp_path / "sets")[0][-1]
    assert saved.manifest["purpose"] == "before-restore"
    restore(uri, saved.path, destination=str(store))
    assert dump(uri) == before
    assert (store / "model").read_bytes() == b"now!"


@pytest.mark.parametrize("kind", KINDS)
def test_a_restore_does_what_was_shown_or_nothing(
    kind: str, old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = old_database("3.15.1", kind)
    backup = back_up(uri, tmp_path / "sets")
    shown = plan(uri, backup)
    run(uri, "DELETE FROM tags")  # rows come and go
    assert plan(uri, backup).fingerprint == shown.fingerprint
    assert json.loads(json.dumps(shown.as_json()))["fingerprint"] == shown.fingerprint
    run(uri, "CREATE TABLE pins (id INTEGER)")
    before = dump(uri)
    with pytest.raises(UserError, match="is not what the plan showed; nothing was changed"):
        restore(uri, backup.path, shown=shown.fingerprint)
    assert dump(uri) == before
    restore(uri, backup.path, shown=plan(uri, backup).fingerprint)


def hostile(backup: sets.BackupSet, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a set with another manifest, whose checksum fits."""
    shutil.copytree(backup.path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    body = {key: value for key, value in manifest.items() if key not in {"format", "checksum"}}
    (folder / "manifest.json").write_text(json.dumps(signed(body)))
    return folder


def test_no_name_of_a_set_leads_out_of_it(
    old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri, store = old_database("3.15.1", "sqlite"), tmp_path / "artifacts"
    store.mkdir()
    (store / "model").write_bytes(b"model")
    (tmp_path / "secret").write_bytes(b"model")
    key = tmp_path / "passphrase"
    key.write_text("secret")
    backup = back_up(uri, tmp_path / "sets", destination=str(store), keys=[key])
    before = dump(uri)
    (tmp_path / "database.sqlite").write_bytes((backup.path / "database.sqlite").read_bytes())

    def listed(manifest: dict[str, Any], folder: Path, line: str) -> None:
        (folder / "artifacts.jsonl").write_text(line)
        manifest["artifacts"]["list_bytes"] = (folder / "artifacts.jsonl").stat().st_size
        manifest["artifacts"]["sha256"] = sha256(folder / "artifacts.jsonl")

    def linked(path: Path, to: str) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(to)

    entry = next(sets.entries(backup))
    broken: list[Callable[[dict[str, Any], Path], object]] = [
        lambda m, _: m["keys"][0].update(name="../x"),
        lambda m, _: m["keys"][0].update(name="/etc/x"),
        lambda m, _: m["database"].update(file="../database.sqlite"),
        lambda m, _: m["artifacts"].update(list="../artifacts.jsonl"),
        lambda m, _: m.update(keys="none"),
        lambda m, _: m.pop("created"),
        lambda m, _: m["database"].pop("rows"),
        lambda m, _: m.update(database=None),
        lambda m, f: listed(m, f, json.dumps(["../../../secret", *entry[1:4]]) + "\n"),
        lambda m, f: listed(m, f, json.dumps([*entry[:4], "renamed/../../../secret"]) + "\n"),
        lambda m, f: listed(m, f, json.dumps(["model", "many"]) + "\n"),
        lambda _, f: linked(f / "artifacts" / "model", "../../../secret"),
        lambda _, f: linked(f / "artifacts", str(store)),
        lambda _, f: linked(f / "database.sqlite", "../../database.sqlite"),
    ]
    for number, change in enumerate(broken):
        folder = tmp_path / "bad" / str(number)
        path = hostile(backup, folder, lambda manifest: change(manifest, folder))  # noqa: B023 - called at once
        with pytest.raises(UserError) as error:
            restore(uri, path, destination=str(tmp_path / "new"), keys_to=tmp_path / "keys")
        assert "nothing was changed" in str(error.value) or "is not sound" in str(error.value), number
    assert dump(uri) == before
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "keys").exists()
    shutil.copytree(backup.path, tmp_path / "bad" / "good")
    (tmp_path / "bad" / "none").mkdir()
    good, rest = sets.list_sets(tmp_path / "bad")  # a bad one is a line, not the end of all
    assert "good" in {backup.path.name for backup in good}
    assert any("is not sound" in line for line in rest)
    assert plan(uri, tmp_path / "bad" / "good").backup.manifest == backup.manifest


def test_users_of_the_server_stay_when_the_set_has_none(tmp_path: Path) -> None:
    uri = old_databases.sqlite_database("3.15.1", tmp_path / "mlflow.db")
    backup = back_up(uri, tmp_path / "sets")
    run(
        uri,
        "CREATE TABLE alembic_version_auth (version_num VARCHAR(32))",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, username VARCHAR(255))",
        "INSERT INTO users VALUES (1, 'ada')",
    )
    restore(uri, backup.path)
    assert ask(uri, "SELECT username FROM users") == ["ada"]
    second = back_up(uri, tmp_path / "sets")
    run(uri, "DELETE FROM users")
    restore(uri, second.path)
    assert ask(uri, "SELECT username FROM users") == ["ada"]


def test_a_laptops_set_goes_beside_tables_of_others_in_postgresql(
    old_database: Callable[[str, str], str],
    new_uri: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    laptop = old_database("3.10.1", "sqlite")
    run(laptop, "CREATE TABLE mine AS SELECT 1")
    backup = back_up(laptop, tmp_path / "sets")
    uri = new_uri("postgresql")
    prepare(uri)
    run(uri, *ANOTHER, "INSERT INTO pins VALUES (7, 'mine')")
    restore(uri, backup.path)
    assert ask(uri, "SELECT note FROM pins") == ["mine"]
    assert len(ask(uri, "SELECT name FROM last_runs")) == backup.database["rows"]["runs"]
    assert "left in the backup, for they are not MLflow's: mine" in capsys.readouterr().err
