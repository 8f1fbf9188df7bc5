"""docs/json.md as data: what a verb answers with ``--json`` is read here, and held against its example there."""

from __future__ import annotations

import json
import re
from typing import Any

from images.catalogue import ROOT

SECTIONS: dict[str, Any] = {
    title: json.loads(example)
    for title, example in re.findall(
        r"^## (.+?)\n\n```json\n(.+?)```$", (ROOT / "docs" / "json.md").read_text(), re.MULTILINE | re.DOTALL
    )
}
SECTIONS["backups"]["sets"] = [{**SECTIONS["backup"], "damage": "..."}]  # as the text there says

# Objects whose names are data: of settings, tables, services, kinds.
NAMED_BY_DATA = {
    "stacks.stacks.settings",
    "about.stacks.services",
    "cleanup.rows",
    "backup.artifacts.outside",
}
NAMED_BY_DATA |= {"backups.sets.artifacts.outside", "backups.sets.databases"}
NAMED_BY_DATA |= {f"{verb}.databases" for verb in ("backup", "migrate", "restore")}

# What the text there says may be left out.
_OF_A_SERVICE = ("health", "url", "version", "uptime", "detail", "full", "memory")
MAY_LACK = {f"{verb}.services.{name}" for verb in ("up", "status") for name in _OF_A_SERVICE}
MAY_LACK |= {"up.gateway", *(f"status.{name}" for name in ("gateway", "schema", "database", "artifacts"))}
MAY_LACK |= {f"migrate.{name}" for name in ("before", "migrated", "backup", "seconds", "users")}
MAY_LACK |= {f"upgrade.{name}" for name in ("action", "restored", "backup", "schema", "smoke", "away")}


def read(verb: str, text: str) -> dict[str, Any]:
    """The answer of a verb, which is one JSON object with the fields of the document."""
    answer = dict(json.loads(text))
    hold(verb, answer)
    return answer


def hold(verb: str, answer: object) -> None:
    """Hold that an answer has the fields of the verb's example, of the same types; None may stand for any."""
    _hold(SECTIONS[verb], answer, verb)


def _hold(example: Any, answer: Any, where: str) -> None:
    if example is None or answer is None:
        return
    numbers = isinstance(example, (int, float)) and not isinstance(example, bool)
    fits = isinstance(answer, (int, float) if numbers else type(example))
    assert fits, f"docs/json.md has another type at {where}: {answer!r}"
    if isinstance(example, list):
        for item in answer if example else ():
            _hold(example[0], item, where)
    elif isinstance(example, dict) and where not in NAMED_BY_DATA:
        unknown = {f"{where}.{name}" for name in answer.keys() - example.keys()}
        assert not unknown, f"docs/json.md does not name {unknown}"
        lacking = {f"{where}.{name}" for name in example.keys() - answer.keys()} - MAY_LACK
        assert not lacking, f"docs/json.md promises {lacking}"
        for name in answer:
            _hold(example[name], answer[name], f"{where}.{name}")
