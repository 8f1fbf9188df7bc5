"""A real S3 server as the store of the artifacts, and as the place of the sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from artifacts import open_store
from artifacts.s3 import s3_client
from backups import sets
from backups.backup import back_up
from backups.places import open_backup, open_place
from backups.restore import restore
from console import UserError
from tests.databases.content import read

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.usefixtures("s3_bucket")
def test_artifacts_in_s3_come_back(
    old_database: Callable[[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backups import object_backup

    client, uri = s3_client(), old_database("3.15.1", "postgresql")
    for number in range(30):
        client.put_object(Bucket="bucket", Key=f"stack/1/run{number}/model ö", Body=bytes([number]) * 1000)
    monkeypatch.setattr(object_backup, "_SETTLED", -10.0)  # these objects have only just been written
    first = back_up(uri, tmp_path / "sets", destination="s3://bucket/stack")
    client.put_object(Bucket="bucket", Key="stack/1/run7/model ö", Body=b"changed" + b"x" * 993)
    client.delete_object(Bucket="bucket", Key="stack/1/run8/model ö")
    second = back_up(uri, tmp_path / "sets", destination="s3://bucket/stack")
    assert (first.manifest["artifacts"]["objects"], first.manifest["artifacts"]["linked"]) == (30, 0)
    assert second.manifest["artifacts"]["objects"] == 29
    assert second.manifest["artifacts"]["linked"] >= 28
    sets.verify(second)

    result = restore(uri, first.path, destination="s3://bucket/stack")
    assert result.artifacts is not None
    assert (result.artifacts["objects"], result.artifacts["left"]) == (30, 0)
    store = open_store("s3://bucket/stack")
    for number in range(30):
        store.fetch(f"1/run{number}/model ö", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == bytes([number]) * 1000

    again = restore(uri, first.path, destination="s3://bucket/elsewhere")  # into an empty place
    assert again.artifacts is not None
    assert again.artifacts["written"] == 30
    assert open_store("s3://bucket/elsewhere").fetch("1/run7/model ö", tmp_path / "copy") is not None


ARTIFACTS = {f"1/run{number}/artifacts/mödel": bytes([number]) * 1000 for number in range(10)}


@pytest.fixture
def sets_address(s3_bucket: Path, tmp_path: Path) -> str:
    """Return a place of its own for each test."""
    assert s3_bucket.is_dir()
    return f"s3://bucket/{tmp_path.name}"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    for key, data in ARTIFACTS.items():
        (folder / key).parent.mkdir(parents=True)
        (folder / key).write_bytes(data)
        os.utime(folder / key, (1e9, 1e9))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sets_in_s3_hold_each_artifact_once_and_come_back(
    old_database: Callable[[str, str], str],
    new_uri: Callable[[str], str],
    sets_address: str,
    files: Path,
    tmp_path: Path,
) -> None:
    uri, key = old_database("3.15.1", "postgresql"), tmp_path / "passphrase"
    key.write_text("secret")
    with open_place(sets_address) as place:
        first = back_up(uri, place, destination=str(files), keys=[key])
        (files / "1/run3/artifacts/mödel").write_bytes(b"changed")
        second = back_up(uri, place, destination=str(files))
        listed, rest = place.sets()
        assert ([backup.where for backup in listed], rest) == ([first.where, second.where], [])
    assert first.where.startswith(f"{sets_address}/2")
    assert (first.manifest["artifacts"]["linked"], second.manifest["artifacts"]["linked"]) == (0, 9)
    store = open_store(sets_address)
    assert len(list(store.list("objects"))) == 11

    for address, changed in ((first.where, b"\3" * 1000), (f"{sets_address}/latest", b"changed")):
        target, fresh = tmp_path / "fresh" / address.rpartition("/")[2], new_uri("postgresql")
        with open_backup(address) as backup:
            restore(fresh, backup, destination=str(target), keys_to=tmp_path / "keys")
        assert content(target) == {**ARTIFACTS, "1/run3/artifacts/mödel": changed}
        assert read(fresh) == read(uri)
    assert (tmp_path / "keys" / "passphrase").read_text() == "secret"


def test_a_set_in_s3_is_pruned_with_what_it_alone_names(
    old_database: Callable[[str, str], str],
    sets_address: str,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    uri, store = old_database("3.15.1", "sqlite"), open_store(sets_address)
    with open_place(sets_address) as place:
        back_up(uri, place, destination=str(files))
        other = back_up(old_database("3.15.1", "sqlite"), place)
        (files / "1/run3/artifacts/mödel").write_bytes(b"changed")
        last = back_up(uri, place, destination=str(files), keep=1)
        assert [backup.where for backup in place.sets()[0]] == [other.where, last.where]
        assert (
            len(list(store.list("objects"))) == 11
        )  # one that no set names may be another backup's, not ended yet
        monkeypatch.setattr("backups.in_s3.GRACE", -60.0)
        last = back_up(uri, place, destination=str(files), keep=1)
        assert len(list(store.list("objects"))) == 10
        sets.verify(place.open(last))


def test_a_damaged_set_in_s3_is_refused_before_anything_is_touched(
    old_database: Callable[[str, str], str], sets_address: str, files: Path, tmp_path: Path
) -> None:
    uri = old_database("3.15.1", "sqlite")
    database = Path(uri.removeprefix("sqlite:///"))
    with open_place(sets_address) as place:
        backup = back_up(uri, place, destination=str(files))
    before, client = database.read_bytes(), s3_client()
    prefix = sets_address.removeprefix("s3://bucket/")
    victim = next(item.key for item in open_store(sets_address).list("objects"))
    wrong = b"x" * 1000

    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words), open_backup(backup.where) as damaged:
            restore(uri, damaged, destination=str(tmp_path / "fresh"))
        assert database.read_bytes() == before
        assert not list((tmp_path / "fresh").rglob("*"))

    client.put_object(Bucket="bucket", Key=f"{prefix}/{victim}", Body=wrong)
    refused("the SHA-256 of artifacts/.* does not fit")
    client.delete_object(Bucket="bucket", Key=f"{prefix}/{victim}")
    refused("artifacts/.* is missing")
    name = backup.where.rpartition("/")[2]
    client.delete_object(Bucket="bucket", Key=f"{prefix}/{name}/manifest.json")
    refused("is not a backup: it has no manifest.json")
    with open_place(sets_address) as place:
        assert place.sets()[0] == []


def test_a_bucket_that_does_not_open_says_what_to_do(
    old_database: Callable[[str, str], str], sets_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = old_database("3.15.1", "sqlite")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError) as refused, open_place(sets_address) as place:
        back_up(uri, place)
    assert "backups: cannot list s3://bucket/" in refused.value.message
    assert "BACKUP_AWS_PROFILE" in refused.value.hints[0]
