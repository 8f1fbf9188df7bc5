"""docs/json.md is true: its examples have the fields of real answers."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from backups.sets import BackupSet
from cleanup.usage import Usage
from cleanup.usage import as_json as usage_json
from database.revision import Schema
from images.catalogue import ROOT
from stacks.engines.base import ServiceStatus
from stacks.verbs import about, doctor, prune, report
from verbs import VERBS

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (ROOT / "docs" / "json.md").read_text()
SECTIONS = {
    title: json.loads(example)
    for titles, example in re.findall(r"^## (.+?)\n\n```json\n(.+?)```$", TEXT, re.MULTILINE | re.DOTALL)
    for title in titles.split(", ")
}


def same_fields(example: Any, answer: Any, where: str = "") -> None:
    """Hold that two values have the same fields, as deep as both have objects."""
    if isinstance(example, dict) and isinstance(answer, dict):
        assert set(example) == set(answer), where
        for name in example:
            same_fields(example[name], answer[name], f"{where}.{name}")
    elif isinstance(example, list) and isinstance(answer, list) and example and answer:
        same_fields(example[0], answer[0], f"{where}[]")


def test_every_verb_that_answers_in_json_has_its_section() -> None:
    answering = {name for name, verb in VERBS.items() if verb.verb.group and hasattr(verb, "json")}
    assert set(SECTIONS) == answering


def test_stacks(capsys: pytest.CaptureFixture[str]) -> None:
    report.catalogue(as_json=True)
    answer = json.loads(capsys.readouterr().out)
    for stack in answer["stacks"]:
        stack["settings"] = {}
    same_fields(SECTIONS["stacks"], answer)


def test_a_service_of_up_and_status() -> None:
    [service] = SECTIONS["status"]["services"]
    known = {field.name for field in fields(ServiceStatus)}
    assert set(service) == known
    assert ServiceStatus(**service).as_json() == service


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    report.doctor(doctor.examine(), as_json=True)
    same_fields(SECTIONS["doctor"], json.loads(capsys.readouterr().out))


def test_about() -> None:
    answer = about.about()
    same_fields({**SECTIONS["about"], "stacks": []}, {**answer, "stacks": []})


def test_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = prune.Unused("image", "x", 1, str(tmp_path))
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(prune, "find", lambda *_, **__: [one])
    same_fields(SECTIONS["prune"], prune.prune())


def test_migrate() -> None:
    schema = Schema("current", "a", "a", "3.17.2", (), "")
    assert set(schema.as_json()) < set(SECTIONS["migrate"])


def test_backup(tmp_path: Path) -> None:
    database = {"kind": "sqlite", "source": "s", "revision": "r", "rows": {"runs": 1}, "bytes": 1}
    artifacts = {"source": "s", "objects": 1, "bytes": 1}
    manifest = {
        name: SECTIONS["backup"][name] for name in ("created", "purpose", "mlflow_version", "seconds")
    }
    one = BackupSet(tmp_path, {**manifest, "database": database, "artifacts": artifacts, "keys": []})
    same_fields(SECTIONS["backup"], one.as_json())


def test_usage() -> None:
    same_fields(SECTIONS["usage"], usage_json([Usage("1", "one")]))


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
