"""A backup set that has its name is on disk: each file, and each folder that names one, before the set is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backups import sets
from backups.backup import back_up
from database.connection import connect
from tests.support import tracing

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_set_is_on_disk_before_it_counts(
    kind: str, old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    uri, store, place = old_database("3.15.1", kind), tmp_path / "artifacts", tmp_path / "sets"
    (store / "1" / "run").mkdir(parents=True)
    (store / "1" / "run" / "old").write_bytes(b"a" * 5000)
    os.utime(store / "1" / "run" / "old", (1_600_000_000, 1_600_000_000))
    back_up(uri, place, destination=str(store))
    with connect(uri).begin() as connection:
        connection.exec_driver_sql("UPDATE runs SET name = 'another'")
    (store / "1" / "new").mkdir()
    (store / "1" / "new" / "file").write_bytes(b"b" * 5000)
    key = tmp_path / "passphrase"
    key.write_text("secret")
    command = [sys.executable, "-m", "backups", "backup", "--json", f"--backend-store-uri={uri}"]
    command += [f"--to={place}", f"--artifacts-destination={store}", f"--include={key}"]
    log = tmp_path / "calls"
    subprocess.run(tracing.traced(log, *command), cwd=ROOT, check=True, stdout=subprocess.PIPE)

    backup, made = sets.list_sets(place)[0][-1], tracing.calls(log)
    assert backup.artifacts is not None
    assert backup.artifacts["linked"] == 1
    draft = f"{backup.path}{sets.PARTIAL}"
    named = next(call for call in made if call.name.startswith("rename") and f'"{draft}", ' in call.text)
    for path in (backup.path, *backup.path.rglob("*")):
        if (
            path.is_file() and path.stat().st_nlink > 1
        ):  # a file of the first set; its new name is its folder's
            continue
        drafted = draft + str(path).removeprefix(str(backup.path))
        drafted = drafted.replace("/manifest.json", "/.manifest.json.new")
        assert tracing.on_disk_before(made, drafted, named), f"{path} may be lost"
    answered = next(call for call in reversed(made) if call.name == "write" and call.text.startswith("1<"))
    assert tracing.on_disk_before(made, str(place), answered)
