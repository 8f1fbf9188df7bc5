"""The catalogue: one small data file a stack. A file put here is a stack from then on."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from console import UserError

CATALOGUE = Path(__file__).parent


@dataclass(frozen=True)
class Stack:
    """One file of the catalogue.

    Attributes:
        name: the file's name without its ending; what ``--stack`` takes.
        description: one line for people.
        services: service names in start order; each has a template per engine.
        settings: this stack's own defaults, by setting name.
    """

    name: str
    description: str
    services: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


def names() -> list[str]:
    """The names of all stacks, sorted."""
    return sorted(path.stem for path in CATALOGUE.glob("*.toml"))


def load(name: str) -> Stack:
    """Read one stack of the catalogue.

    Raises:
        UserError: there is no stack of that name; the nearest name is offered.
    """
    path = CATALOGUE / f"{name}.toml"
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean: invoke up --stack={near[0]}" if near else "see what there is: invoke stacks"
        raise UserError(f"unknown stack '{name}'", f"known stacks: {', '.join(names())}", hint)
    try:
        data = tomllib.loads(path.read_text())
        return Stack(name, data["description"], tuple(data["services"]), data.get("settings", {}))
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise UserError(
            f"the stack file {path} cannot be read: {error}",
            'it needs description = "..." and services = [...]; stacks/catalogue/local.toml is a small example',
        ) from error
