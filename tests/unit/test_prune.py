"""What nothing uses: found, shown, and removed only after a yes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from images import build, engine, packages
from images.catalogue import image
from stacks import catalogue
from stacks.state import record
from stacks.verbs import prune as pruning
from stacks.verbs.prune import find, prune
from tests.support.deployments import deployment

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from stacks.definition.deployment import Deployment

CURRENT, BASE = build.reference("mlflow"), packages.tag(image("mlflow").base)
OURS: list[dict[str, Any]] = [
    {"Id": "sha256:current", "RepoTags": [CURRENT], "Size": 9},
    {"Id": "sha256:old", "RepoTags": ["mlflow-stacks/mlflow:3.17.1-0a"], "Size": 1_500_000},
    {"Id": "sha256:stage", "RepoTags": [], "Size": 7},
    {"Id": "sha256:held", "RepoTags": ["mlflow-stacks/mlflow:3.16.0-0b"], "Size": 8},
    {"Id": "sha256:recorded", "RepoTags": ["mlflow-stacks/mlflow:3.15.1-0c"], "Size": 8},
]


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A stack of version 3.15.1 that ran 3.14.0 before, an engine with images, and nobody to ask."""
    state = tmp_path / "local"
    for name in ("3.14.0", "3.15.1", "3.14.0.partial"):
        (state / "mlflow" / name).mkdir(parents=True)
        (state / "mlflow" / name / "python").write_bytes(b"x" * 1500)
    (state / "mlflow" / "3.14.0.txt").write_text("lock")
    (state / "mlflow" / "3.15.1.txt").write_text("lock")
    known = {"engine": "host", "images": {"mlflow": "mlflow-stacks/mlflow:3.15.1-0c"}}
    (state / "stack.json").write_text(json.dumps(known))
    deployed = deployment("local", version="3.15.1")
    opened = replace(deployed, state=state, recorded=record.read(state))
    here = {str(row["Id"]): row for row in OURS}
    tags = {tag: row for row in OURS for tag in row["RepoTags"]}

    def remove(ids: Iterable[str]) -> None:
        for identity in list(ids):
            del here[identity]

    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(engine, "answers", lambda: True)
    monkeypatch.setattr(engine, "images_in_use", lambda: {"sha256:held"})
    monkeypatch.setattr(engine, "inspect", tags.get)
    monkeypatch.setattr(engine, "labelled", lambda label: list(here.values()) if label == build.LABEL else [])
    monkeypatch.setattr(build, "remove", remove)
    monkeypatch.setattr(pruning, "open_recorded", lambda _: opened)
    monkeypatch.setattr(catalogue, "names", lambda: ["local"])
    return opened


def places(stack: Deployment) -> set[str]:
    root = f"{stack.state}/"
    return {unused.place.removeprefix(root) for unused in find([stack], images=True)}


def test_what_a_container_a_record_or_this_checkout_uses_is_no_candidate(stack: Deployment) -> None:
    assert places(stack) == {
        "sha256:old",
        "sha256:stage",
        "mlflow/3.14.0",
        "mlflow/3.14.0.partial",
        "mlflow/3.14.0.txt",
    }


def test_without_a_yes_the_plan_is_shown_and_nothing_changes(
    stack: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    before = places(stack)
    answer = prune()
    shown = capsys.readouterr().err
    assert places(stack) == before
    assert (answer["removed"], answer["left"], len(answer["unused"])) == (0, 5, 5)
    assert "image mlflow-stacks/mlflow:3.17.1-0a: 1.5 MB" in shown
    assert "environment 3.14.0 of stack 'local': 1.5 kB" in shown
    assert "nothing was changed" in shown


def test_with_a_yes_it_is_gone_and_what_is_used_stays(stack: Deployment) -> None:
    answer = prune(yes=True)
    assert (answer["removed"], answer["left"]) == (5, 0)
    assert places(stack) == set()
    assert sorted(path.name for path in (stack.state / "mlflow").iterdir()) == ["3.15.1", "3.15.1.txt"]
    assert prune(yes=True)["unused"] == []


def test_of_one_stack_only_its_environments(stack: Deployment) -> None:
    assert {row["kind"] for row in prune("local", yes=True)["unused"]} == {"environment"}
    assert "sha256:old" in places(stack)


def test_what_an_upgrade_that_was_cut_off_needs_stays(stack: Deployment) -> None:
    (stack.state / "upgrade.json").write_text("{}")
    assert places(stack) == {"sha256:old", "sha256:stage"}
