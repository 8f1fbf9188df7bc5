"""What there is to know of a service stands in its entry: nothing else names one."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from stacks import catalogue
from stacks.definition.rendering import FRAMES, render, secrets_named
from stacks.definition.services import SERVICES
from stacks.definition.settings import ROOT
from stacks.state import secrets
from tests.support.deployments import deployment

if TYPE_CHECKING:
    from pathlib import Path

OTHER_MEANINGS = {"mlflow", "schema", "gateway", "cleanup"}  # a package, a key of JSON, a folder, a module
ROOMS = [ROOT / "stacks" / room for room in ("engines", "state", "verbs")]
FILES = sorted(path for room in ROOMS for path in room.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_state_and_verbs_name_no_service(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    words = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not words & (SERVICES.keys() - OTHER_MEANINGS)


@pytest.mark.parametrize("engine", sorted(FRAMES))
@pytest.mark.parametrize("stack", catalogue.names())
def test_every_secret_that_is_rendered_has_an_owner_in_the_stack(stack: str, engine: str) -> None:
    subject = deployment(stack)
    owned = {secret.name for name in subject.services for secret in SERVICES[name].secrets}
    made = {*owned, *(name for name, of in secrets.PREVIOUS.items() if of in owned)}
    derived = {name for name, sources in secrets.SOURCES.items() if owned.issuperset(sources)}
    named = secrets_named(render(subject, engine)) - {"gateway-keys"}
    assert named <= made | derived


def test_fresh_secrets_have_their_length_and_prefix() -> None:
    user = secrets.fresh("object-store-root-user")
    assert user.startswith("root")
    assert len(user) == len("root") + 16
    assert secrets.fresh("postgres-password") != secrets.fresh("postgres-password")
