"""Artifacts in a real S3 server are backed up, linked while unchanged, and restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from artifacts import open_store
from artifacts.s3 import s3_client
from database import sets
from database.backup import back_up
from database.restore import restore
from tests.host.artifacts.test_stores import s3_bucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["s3_bucket"]


@pytest.mark.usefixtures("s3_bucket")
def test_artifacts_in_s3_come_back(
    old_database: Callable[[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from database import artifacts

    client, uri = s3_client(), old_database("3.15.1", "postgresql")
    for number in range(30):
        client.put_object(Bucket="bucket", Key=f"stack/1/run{number}/model ö", Body=bytes([number]) * 1000)
    monkeypatch.setattr(artifacts, "_SETTLED", -10.0)  # these objects have only just been written
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
