"""The shape of `gateway.yaml`, and where in the file something is wrong with it.

A key that mlflow would ignore is an error here (``extra="forbid"``), told by its path and line, with the key that may
have been meant.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from console import UserError
from files import require_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    Keys = tuple[str | int, ...]

Shape = TypeVar("Shape", bound=BaseModel)
Text = Annotated[str, Field(min_length=1)]


_WANTED = {
    "a mapping": {"model_type", "dict_type"},
    "a list": {"list_type"},
    "a whole number": {"int_type", "int_parsing"},
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Limit(_Part):
    """How many requests, of the standalone gateway only; what a period may be is mlflow's to say."""

    calls: int
    key: str | None = None
    renewal_period: Text


class Model(_Part):
    """A provider's model, and what the provider needs."""

    name: str | None = None
    provider: Text
    config: dict[str, Any] | None = None


class EndpointEntry(_Part):
    """One of `endpoints`."""

    name: Text
    endpoint_type: Text
    model: Model
    limit: Limit | None = None


class Destination(_Part):
    """An endpoint and its percentage of a route's requests."""

    name: Text
    traffic_percentage: Annotated[int, Field(strict=True, ge=0, le=100)]


class RouteEntry(_Part):
    """One of `routes`."""

    name: Text
    task_type: Text
    destinations: list[Destination]
    routing_strategy: Literal["TRAFFIC_SPLIT"] = "TRAFFIC_SPLIT"


class File(_Part):
    """All of it."""

    endpoints: list[EndpointEntry] | None = None
    routes: list[RouteEntry] | None = None


class Document:
    """A YAML file that knows the line of each of its keys."""

    def __init__(self, path: Path) -> None:
        """Parse it.

        Raises:
            UserError: it cannot be read, or is no YAML.
        """
        self.path = path
        try:
            require_file(path)
            text = path.read_text(encoding="utf-8")
            self._node = yaml.compose(text, Loader=yaml.SafeLoader)
            self._value = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise UserError(f"cannot read {path.name}: {reason}", f"file: {path}") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{path}, line {mark.line + 1}" if mark else str(path)
            problem = getattr(error, "problem", None) or "it cannot be parsed"
            raise UserError(f"{path.name} is not valid YAML: {problem}", f"file: {place}") from None
        except (ValueError, RecursionError) as error:  # a date or a number that there is not; too deep
            raise UserError(f"{path.name} holds what cannot be read: {error}", f"file: {path}") from None
        self._refuse_twice(self._node, ())

    def _refuse_twice(self, node: yaml.Node | None, at: Keys) -> None:
        """Refuse a key that stands twice in one mapping: YAML would drop the first without a word."""
        if isinstance(node, yaml.SequenceNode):
            parts: list[tuple[str | int, yaml.Node]] = list(enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            parts = [(str(key.value), value) for key, value in node.value]
        else:
            return
        keys = [key for key, _ in parts]
        if twice := [key for index, key in enumerate(keys) if key in keys[:index]]:
            raise self.error((*at, twice[0]), "is there twice")
        for key, value in parts:
            self._refuse_twice(value, (*at, key))

    def read(self) -> File:
        """Return what it says.

        Raises:
            UserError: something in it has another shape.
        """
        if self._value is None:
            return File()
        return self.valid(File, self._value, ())

    def valid(self, shape: type[Shape], value: object, at: Keys) -> Shape:
        """Return a part of the file as a model.

        Args:
            shape: the model; what it does not know it must forbid.
            value: the part.
            at: its place in the file.

        Raises:
            UserError: it has another shape; says where, and what is meant to be there.
        """
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            # a misspelt key leaves the one that was meant missing, too
            first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
            keys: Keys = (*at, *first["loc"])
            unknown = first["type"] == "extra_forbidden"
            hints = _meant(str(keys[-1]), list(_fields(shape, first["loc"][:-1]))) if unknown else []
            raise self.error(keys, _message(first), *hints) from None

    def error(self, keys: Keys, message: str, *hints: str) -> UserError:
        """Return an error that names a place in the file by its path and its line."""
        dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
        place = f"{dotted}: " if dotted else ""
        return UserError(
            f"{self.path.name}: {place}{message}", f"file: {self.path}, line {self._line(keys)}", *hints
        )

    def _line(self, keys: Keys) -> int:
        node = self._node
        line: int = node.start_mark.line if node else 0
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                pairs = [(name, value) for name, value in node.value if name.value == key]
                if not pairs:
                    break
                line, node = pairs[0][0].start_mark.line, pairs[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line
        return line + 1


def kind_of(value: object) -> str:
    """Name what a YAML value is, for a message."""
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        float: "a fraction",
        type(None): "nothing",
    }
    return names.get(type(value), "a number")


def _message(first: Mapping[str, Any]) -> str:
    given, kind = first["input"], first["type"]
    if kind == "extra_forbidden":
        return "unknown key"
    if given is None or kind in {"missing", "string_too_short"}:
        return "is required"
    wanted = next((what for what, kinds in _WANTED.items() if kind in kinds), None)
    return (
        f"must be {wanted}, not {kind_of(given)}" if wanted else first["msg"].replace("Input should", "must")
    )


def _meant(key: str, known: list[str]) -> list[str]:
    near = difflib.get_close_matches(key, known, 1)
    return [f"did you mean: {near[0]}" if near else f"known: {', '.join(known)}"]


def _fields(shape: type[BaseModel], keys: Keys) -> Iterator[str]:
    """Yield the names that a model, or the one at a place in it, has fields for."""
    for key in keys:
        if isinstance(key, int):
            continue
        kinds = [shape.model_fields[key].annotation]
        while kinds:
            kind = kinds.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                shape = kind
            kinds += getattr(kind, "__args__", ())
    yield from shape.model_fields
