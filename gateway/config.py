"""Read `gateway.yaml`, in the format of mlflow's standalone gateway, and find the provider keys it names.

The format: https://mlflow.org/docs/latest/genai/governance/ai-gateway/, checked by the models of
``mlflow.gateway.config`` (3.17.2). mlflow itself ignores keys that it does not know, takes a key file's line
end for a part of the key, and does not start when a provider key is missing; here a misspelt key is an error,
and a missing provider key is the matter of its endpoint alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files import require_file
from gateway.document import Document, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from gateway.document import EndpointEntry, Keys, RouteEntry

_SECRET_FIELD = re.compile(
    r"(api_key|access_key|access_key_id|session_token|bearer_token|credentials|client_secret)$"
)
_LOOKS_LIKE_A_KEY = re.compile(r"(sk|pk|rk|gsk|xai|key|AIza|AKIA)[-_0-9A-Za-z]{12,}|[-_0-9A-Za-z]{36,}")


@dataclass(frozen=True)
class Endpoint:
    """One endpoint, its provider keys found or one of them missing.

    Args:
        name: of the endpoint, what a client calls its model.
        kind: ``llm/v1/chat``, ``llm/v1/completions`` or ``llm/v1/embeddings``.
        provider: as mlflow names it, such as ``openai``.
        model: the provider's name of the model.
        config: what the provider needs, provider keys included: never print it.
        limit: ``calls`` and ``renewal_period``, or None.
        missing: which key is missing and where to put it; "" when none is.
        where: place in the file, such as ``endpoints[0]``.
    """

    name: str
    kind: str
    provider: str
    model: str | None
    config: dict[str, Any] = field(repr=False)
    limit: dict[str, Any] | None
    missing: str
    where: str

    def for_mlflow(self) -> dict[str, Any]:
        """Make the mapping that mlflow reads, provider keys in it."""
        model = {"name": self.model, "provider": self.provider, "config": self.config}
        return {"name": self.name, "endpoint_type": self.kind, "model": model, "limit": self.limit}

    def secrets(self) -> dict[str, str]:
        """Pick the part of the config that nobody may see."""
        return {key: str(value) for key, value in self.config.items() if _SECRET_FIELD.search(key)}


@dataclass(frozen=True)
class Route:
    """One name in front of several endpoints, which share its requests.

    Args:
        name: what a client calls its model.
        kind: as an endpoint's.
        shares: percentage of the requests by endpoint name; they sum to 100.
        missing: as an endpoint's.
        where: place in the file.
    """

    name: str
    kind: str
    shares: dict[str, int]
    missing: str
    where: str

    def for_mlflow(self) -> dict[str, Any]:
        """Make the mapping that mlflow reads."""
        destinations = [{"name": name, "traffic_percentage": share} for name, share in self.shares.items()]
        return {"name": self.name, "task_type": self.kind, "destinations": destinations}


@dataclass(frozen=True)
class Gateway:
    """What a `gateway.yaml` says.

    Args:
        endpoints: in the file's order.
        routes: in the file's order.
    """

    endpoints: tuple[Endpoint, ...] = ()
    routes: tuple[Route, ...] = ()

    def all(self) -> list[Endpoint | Route]:
        """List endpoints, then routes."""
        return [*self.endpoints, *self.routes]

    def missing(self) -> dict[str, str]:
        """Collect the names that cannot be served, each with its reason."""
        return {entry.name: entry.missing for entry in self.all() if entry.missing}


class _KeyStore:
    """Where provider keys come from: environment variables, and files in one folder."""

    def __init__(self, folder: Path | None, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = environ

    def find(self, reference: str) -> tuple[str, str]:
        """Look up one key: the key and "", or "" and what is missing."""
        variable = reference.removeprefix("$")
        if reference.startswith("$") and self.environ.get(variable):
            return self.environ[variable], ""
        path = Path(variable) if self.folder is None else self.folder / variable
        try:
            require_file(path)
            key = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            problem = "there is no" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
        except ValueError:  # its name cannot be one, or it is not UTF-8
            problem = "this cannot be read as text:"
        else:
            if key:
                return key, ""
            problem = "nothing is in"
        or_variable = f", and no variable {variable}" if reference.startswith("$") else ""
        return "", f"{problem} secret file {path}{or_variable}"


def named(path: str) -> Path | None:
    """The path that a flag names; None where it names none."""
    return Path(path) if path else None


def load(path: Path | None, secrets: Path | None = None, environ: Mapping[str, str] | None = None) -> Gateway:
    """Read and check a `gateway.yaml`.

    Args:
        path: the file; None or a file that is not there means a gateway without endpoints.
        secrets: folder in which provider keys lie, one file each; ``$NAME`` is looked up in the environment
            and then there.
        environ: the environment (default: this process').

    Raises:
        UserError: the file is wrong; says the path of the key, the file and the line.
    """
    if path is None or not path.exists():
        return Gateway()
    document = Document(path)
    file = document.read()
    keys = _KeyStore(secrets, os.environ if environ is None else environ)
    endpoints = [
        _endpoint(document, keys, ("endpoints", index), entry)
        for index, entry in enumerate(file.endpoints or [])
    ]
    by_name: dict[str, Endpoint] = {}
    for index, endpoint in enumerate(endpoints):
        if endpoint.name in by_name:
            raise document.error(("endpoints", index, "name"), f"'{endpoint.name}' is taken")
        by_name[endpoint.name] = endpoint
    routes: list[Route] = []
    for index, entry in enumerate(file.routes or []):
        route = _route(document, ("routes", index), entry, by_name)
        if route.name in {*by_name, *(other.name for other in routes)}:
            raise document.error(("routes", index, "name"), f"'{route.name}' is taken")
        routes.append(route)
    return Gateway(tuple(endpoints), tuple(routes))


def _endpoint(document: Document, store: _KeyStore, keys: Keys, entry: EndpointEntry) -> Endpoint:
    # Imported here, for mlflow takes seconds.
    from mlflow.exceptions import MlflowException
    from mlflow.gateway.config import EndpointConfig, EndpointType
    from mlflow.gateway.provider_registry import provider_registry
    from mlflow.gateway.utils import is_valid_endpoint_name
    from pydantic import ValidationError

    if not is_valid_endpoint_name(entry.name):
        raise document.error((*keys, "name"), "may hold letters, digits, hyphens, underscores and dots only")
    kinds = [kind.value for kind in EndpointType]
    if entry.endpoint_type not in kinds:
        raise document.error((*keys, "endpoint_type"), f"must be one of {', '.join(kinds)}")
    limit = entry.limit.model_dump(exclude_none=True) if entry.limit else None
    at: Keys = (*keys, "model", "provider")
    try:
        provider = _provider(entry.model.provider)
        at = (*keys, "model", "config")
        shape = _strict(provider_registry.get(provider).CONFIG_TYPE)
        given = {
            name: value
            for name, value in (entry.model.config or {}).items()
            if not (name in shape.model_fields and shape.model_fields[name].is_required() and value == "")
        }
        config, missing = _with_keys(document, store, at, given)
        document.valid(shape, config, at)
        at = (*keys, "limit") if limit else keys  # all else has been checked
        model = {"name": entry.model.name, "provider": provider, "config": config}
        whole: dict[str, Any] = {
            "name": entry.name,
            "endpoint_type": entry.endpoint_type,
            "model": model,
            "limit": limit,
        }
        EndpointConfig(**whole)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise document.error((*at, *first["loc"]), first["msg"]) from None
    except MlflowException as error:
        raise document.error(at, error.message) from None
    return Endpoint(
        name=entry.name,
        kind=entry.endpoint_type,
        provider=str(getattr(provider, "value", provider)),
        model=entry.model.name,
        config=config,
        limit=limit,
        missing=missing,
        where=f"{keys[0]}[{keys[1]}]",
    )


def _strict(config: type[BaseModel]) -> type[BaseModel]:
    """Return a provider's model of its configuration as one that knows no further keys."""
    return type(config.__name__, (config,), {"__module__": __name__, "model_config": {"extra": "forbid"}})


def _provider(name: object) -> Any:
    from mlflow.gateway.config import Model

    return Model(provider=str(name)).provider


def _with_keys(
    document: Document, store: _KeyStore, keys: Keys, config: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Put the provider keys into a config: the config, and which key is missing or ""."""
    complete: dict[str, Any] = {}
    missing = ""
    for name, value in config.items():
        at = (*keys, name)
        if isinstance(value, dict):
            complete[name], lacking = _with_keys(document, store, at, value)
            missing = missing or lacking
        elif _SECRET_FIELD.search(name) and value is not None:
            if not isinstance(value, str):
                raise document.error(
                    at, f"must be $VARIABLE or the name of a secret file, not {kind_of(value)}"
                )
            if _LOOKS_LIKE_A_KEY.fullmatch(value):
                raise document.error(
                    at,
                    "holds what looks like a key itself",
                    "put the key into a secret file, and its name here",
                )
            key, lacking = store.find(value)
            complete[name] = key or "missing"
            missing = missing or lacking
        else:
            complete[name] = value
    return complete, missing


def _route(document: Document, keys: Keys, entry: RouteEntry, endpoints: Mapping[str, Endpoint]) -> Route:
    shares: dict[str, int] = {}
    for index, destination in enumerate(entry.destinations):
        at: Keys = (*keys, "destinations", index, "name")
        if destination.name not in endpoints:
            raise document.error(at, f"there is no endpoint '{destination.name}'")
        kind = endpoints[destination.name].kind
        if kind != entry.task_type:
            raise document.error(at, f"'{destination.name}' is {kind}, the route another task type")
        shares[destination.name] = destination.traffic_percentage
    if sum(shares.values()) != 100:
        raise document.error((*keys, "destinations"), "the traffic percentages must sum to 100")
    missing = next((endpoints[name].missing for name in shares if endpoints[name].missing), "")
    return Route(entry.name, entry.task_type, shares, missing, where=f"{keys[0]}[{keys[1]}]")
