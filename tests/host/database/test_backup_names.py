"""Every name that a store can hold is in the set and comes back; what a set cannot hold is named."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from backups import sets
from backups.backup import back_up
from backups.restore import restore
from console import UserError
from tests.support import old_databases
from tests.support.plain_s3 import plain_s3

KEYS = {
    "1/run/artifacts/plain": b"plain",
    "1/run/artifacts/back\\slash": b"backslash",
    "1/run//artifacts/twice": b"two slashes",
    "1/run/./artifacts/dot": b"a dot",
    "1/../../up": b"up",
    "/absolute": b"absolute",
    "1/run/artifacts/folder/": b"",
    "1/run/artifacts/both": b"a file",
    "1/run/artifacts/both/x": b"and a folder",
    "1/run/artifacts/" + "l" * 300: b"long",
    "1/run/artifacts/line\nbreak\t\x7f": b"control",
    "1/run/artifacts/%2e%2e": b"encoded",
    "1/run/artifacts/mödel ☃ +&?#": b"letters",
}


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return old_databases.sqlite_database("3.15.1", tmp_path / "mlflow.db")


def test_every_key_of_a_bucket_is_kept_and_put_back(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with plain_s3() as objects:
        objects.update({f"stack/{key}": body for key, body in KEYS.items()})
        backup = back_up(uri, tmp_path / "sets", destination="s3://bucket/stack")
        assert backup.artifacts is not None
        assert backup.artifacts["objects"] == len(KEYS)
        assert backup.manifest["format"] == 2
        sets.verify(backup)
        digest = sha256(b"1/run//artifacts/twice").hexdigest()
        assert (backup.path / "renamed" / digest).read_bytes() == b"two slashes"  # as FORMAT.md says
        assert back_up(uri, tmp_path / "sets", destination="s3://bucket/stack").manifest["artifacts"][
            "linked"
        ] == len(KEYS)
        restore(uri, backup.path, destination="s3://bucket/again")
        assert {key: body for key, body in objects.items() if key.startswith("again/")} == {
            f"again/{key}": body for key, body in KEYS.items()
        }
        with pytest.raises(UserError, match=r"(?s)cannot hold \d objects of the backup.*nothing was changed"):
            restore(uri, backup.path, destination=str(tmp_path / "folder"))
        assert not (tmp_path / "folder").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_sets_in_a_bucket_hold_every_key(uri: str) -> None:
    from backups.places import open_backup, open_place

    with plain_s3() as objects:
        objects.update({f"stack/{key}": body for key, body in KEYS.items()})
        with open_place("s3://bucket/sets") as place:
            back_up(uri, place, destination="s3://bucket/stack")
        for key in KEYS:
            del objects[f"stack/{key}"]
        names = {key.split("/")[1] for key in objects if not key.startswith("sets/objects/")}
        with open_backup(f"s3://bucket/sets/{names.pop()}") as backup:
            restore(uri, backup, destination="s3://bucket/stack")
        assert {key: body for key, body in objects.items() if key.startswith("stack/")} == {
            f"stack/{key}": body for key, body in KEYS.items()
        }


def test_every_name_of_a_folder_is_kept_and_put_back(uri: str, tmp_path: Path) -> None:
    store = tmp_path / "artifacts"
    names = [b"back\\slash", b"not \xff utf-8 \xc3", b"x" * 255, "mödel".encode(), b"line\nbreak", b"~", b" "]
    for name in names:
        path = os.fsencode(store / "1" / "run") + b"/" + name + b".d"[: 2 if len(name) < 250 else 0] + b"/f"
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - bytes
        Path(os.fsdecode(path)).write_bytes(name)
    wanted = {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("f")}
    assert len(wanted) == len(names)
    backup = back_up(uri, tmp_path / "sets", destination=str(store))
    sets.verify(backup)
    restore(uri, backup.path, destination=str(tmp_path / "fresh"))
    fresh = tmp_path / "fresh"
    assert {str(path.relative_to(fresh)): path.read_bytes() for path in fresh.rglob("f")} == wanted


def test_what_is_no_file_is_named_and_the_rest_is_whole(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "artifacts"
    (store / "1").mkdir(parents=True)
    (store / "1" / "model").write_bytes(b"model")
    (store / "1" / "link").symlink_to("/etc/passwd")
    (store / "1" / "folder").symlink_to("/etc")
    os.mkfifo(store / "1" / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(store / "1")  # the path of a socket must be short
        listening.bind("socket")
        backup = back_up(uri, tmp_path / "sets", destination=str(store))
    assert backup.artifacts is not None
    assert backup.artifacts["objects"] == 1
    assert {missing["key"]: missing["reason"] for missing in backup.artifacts["left_out"]} == {
        "1/link": "symbolic link",
        "1/folder": "symbolic link",
        "1/fifo": "FIFO",
        "1/socket": "socket",
    }
    assert backup.as_json()["artifacts"]["left_out"] == backup.artifacts["left_out"]
    assert "1 objects of 5 bytes, 4 left out" in backup.line()
    assert "left out, for a backup holds the content of files: " in capsys.readouterr().err
    result = restore(uri, backup.path, destination=str(store))
    assert result.artifacts is not None
    assert result.artifacts["left"] == 4
    assert (store / "1" / "link").is_symlink()


def test_all_that_lies_outside_is_counted_by_kind(uri: str, tmp_path: Path) -> None:
    place = "file:///elsewhere"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        for statement in (
            "UPDATE experiments SET artifact_location = 'mlflow-artifacts:/' || experiment_id",
            "UPDATE runs SET artifact_uri = 'mlflow-artifacts:/1/' || run_uuid || '/artifacts'",
            f"UPDATE runs SET artifact_uri = '{place}' WHERE run_uuid IN (SELECT run_uuid FROM runs LIMIT 2)",
            f"UPDATE logged_models SET artifact_location = '{place}/m'",
            f"UPDATE model_versions SET source = 'models:/m-1', storage_location = '{place}/v'",
            "UPDATE trace_tags SET value = 'mlflow-artifacts:/t' WHERE key = 'mlflow.artifactLocation'",
            f"INSERT INTO trace_tags (key, value, request_id) SELECT 'mlflow.trace.archiveLocation', '{place}/t',"
            " request_id FROM trace_info LIMIT 1",
        ):
            database.execute(statement)
        models, versions = (
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("logged_models", "model_versions")
        )
    (tmp_path / "artifacts").mkdir()
    backup = back_up(uri, tmp_path / "sets", destination=str(tmp_path / "artifacts"))
    assert backup.as_json()["artifacts"]["outside"] == {
        "runs": 2,
        "models": models,
        "versions": versions,
        "traces": 1,
    }
    json.dumps(backup.as_json())
