"""docs/json.md is true: its examples have the fields of real answers."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from backups.migrate import Plan, Result
from backups.sets import BackupSet
from cleanup.usage import Usage
from cleanup.usage import as_json as usage_json
from database.revision import Schema, Step
from stacks.engines.base import ServiceStatus
from stacks.verbs import about, doctor, prune, report
from tests.support.answers import SECTIONS, hold, read
from verbs import VERBS

if TYPE_CHECKING:
    from pathlib import Path


def test_every_verb_that_answers_in_json_has_its_section() -> None:
    answering = {name for name, verb in VERBS.items() if verb.verb.group and hasattr(verb, "json")}
    assert set(SECTIONS) == answering


def test_stacks(capsys: pytest.CaptureFixture[str]) -> None:
    report.catalogue(as_json=True)
    assert read("stacks", capsys.readouterr().out)["stacks"]


def test_a_service_of_up_and_status() -> None:
    [service] = SECTIONS["up"]["services"]
    known = {field.name for field in fields(ServiceStatus)}
    assert set(service) == known
    assert ServiceStatus(**service).as_json() == service


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    report.doctor(doctor.examine(), as_json=True)
    assert read("doctor", capsys.readouterr().out)["findings"]


def test_about() -> None:
    hold("about", about.about())


def test_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unused = prune.Unused("image", "x", 1, str(tmp_path))
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(prune, "find", lambda *_, **__: [unused])
    hold("prune", prune.prune())


def test_migrate() -> None:
    behind = Schema("behind", "a", "b", "3.17.2", (Step("b", "a title"),), "")
    for answer in (Plan(behind, ["somebody"]).as_json(), Result(behind, behind, None, 0.5).as_json()):
        hold("migrate", {**answer, "databases": {"auth": answer}})  # as the verb puts them together


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": 1}, "does not name {'usage.more'}"),
        ({"total": {}}, "promises"),
        ({"experiments": {}}, "another type at usage.experiments"),
    ],
)
def test_what_differs_from_the_document_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        hold("usage", {**SECTIONS["usage"], **change})


@pytest.mark.parametrize("verb", SECTIONS)
def test_each_example_is_an_answer(verb: str) -> None:
    hold(verb, SECTIONS[verb])


def test_backup(tmp_path: Path) -> None:
    database = {"kind": "sqlite", "source": "s", "revision": "r", "rows": {"runs": 1}, "bytes": 1}
    artifacts = {"source": "s", "objects": 1, "bytes": 1}
    manifest = {
        name: SECTIONS["backup"][name] for name in ("created", "purpose", "mlflow_version", "seconds")
    }
    backup_set = BackupSet(tmp_path, {**manifest, "database": database, "artifacts": artifacts, "keys": []})
    hold("backup", backup_set.as_json())


def test_usage() -> None:
    hold("usage", usage_json([Usage("1", "one")]))


def test_on_windows_doctor_names_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    [finding] = doctor.examine()
    assert not finding.ok
    assert "wsl --install" in str(finding.mend)


def test_where_files_cannot_be_locked_the_message_names_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    import console

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delitem(sys.modules, "files")
    with pytest.raises(console.UserError, match="Linux and macOS"):
        __import__("files")
