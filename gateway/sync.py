"""``python -m gateway.sync``: bring the gateway inside a tracking server into line with `gateway.yaml`.

Works through the server's REST API (``/api/3.0/mlflow/gateway``, mlflow 3.17.2). What it makes is marked by
``created_by``; what anybody else made is never changed, nor deleted. A second run changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import arguments
import flags
import values
from console import UserError, emit_json, note, user_errors
from flags import Flag, flag
from gateway.asgi import no_key
from gateway.client import Server
from gateway.config import Endpoint, Gateway, Route, load, named
from verbs import Request, verb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TRACKING_URI = Flag(
    "tracking-uri",
    values.text("URI", "an http:// or https:// address", "http://127.0.0.1:5555", "https?://.*"),
    "the tracking server",
    required=True,
    server_variable="MLFLOW_TRACKING_URI",
)
USAGE_TRACKING = Flag(
    "usage-tracking", values.SWITCH, "keep requests and answers as traces, in an experiment for each endpoint"
)

OWNER = "mlflow-stacks"
# What the stored key was when it was last written, as 16 bits of a hash: enough to see a change, too few to
# tell anything about the key.
DIGEST_TAG = "mlflow-stacks.key"

# Providers whose settings the server's gateway takes under the same names, without this prefix
# (mlflow.server.gateway_api._build_endpoint_config).
PREFIXES = {
    "openai": "openai_",
    "anthropic": "anthropic_",
    "mistral": "mistral_",
    "gemini": "gemini_",
    "groq": "",
    "deepseek": "",
    "xai": "",
    "openrouter": "",
    "ollama": "",
}
KINDS = ("llm/v1/chat", "llm/v1/embeddings")


@dataclass
class Report:
    """What a run did, by endpoint name; ``missing`` says why an endpoint was left out."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """One model definition and its secret, as the server's gateway takes them."""

    secret: dict[str, str] = field(repr=False)
    settings: dict[str, str]
    provider: str
    model: str

    def digest(self) -> str:
        """Make the mark by which a changed key is seen."""
        return hashlib.sha256(json.dumps(self.secret, sort_keys=True).encode()).hexdigest()[:4]


def wanted(endpoint: Endpoint) -> Wanted:
    """Translate one endpoint.

    Raises:
        UserError: the server's gateway has nothing of the kind.
    """

    def cannot(key: str, why: str) -> UserError:
        return UserError(
            f"{endpoint.where}.{key}: the gateway inside the tracking server {why}",
            "the standalone gateway can: --set gateway=standalone",
        )

    if endpoint.kind not in KINDS:
        raise cannot("endpoint_type", f"has no {endpoint.kind}")
    if endpoint.limit:
        raise cannot("limit", "has no limit of calls (it has budgets: set them in the UI)")
    if endpoint.provider not in PREFIXES:
        raise cannot("model.provider", f"cannot take '{endpoint.provider}' from this file")
    if not endpoint.model:
        raise cannot("model.name", "needs a model name")
    prefix = PREFIXES[endpoint.provider]
    secrets = endpoint.secrets()
    settings = {
        key.removeprefix(prefix): str(value)
        for key, value in endpoint.config.items()
        if key not in secrets and value is not None and (key, value) != ("openai_api_type", "openai")
    }
    secret = {key.removeprefix(prefix): value for key, value in secrets.items()}
    return Wanted(secret or {"api_key": "none"}, settings, endpoint.provider, endpoint.model)


def sync(gateway: Gateway, server: Server, *, usage_tracking: bool = False) -> Report:
    """Create, update and delete until the server has what the file says.

    An endpoint whose provider key is missing is left as it is, or left out.

    Args:
        gateway: what the file says.
        server: the server.
        usage_tracking: whether requests and answers are kept as traces, in an experiment for each endpoint.

    Raises:
        UserError: something cannot be translated (before anything is changed), a name is taken by an endpoint
            that somebody made, or the server refuses.
    """
    models = {endpoint.name: wanted(endpoint) for endpoint in gateway.endpoints}
    for route in gateway.routes:
        if route.kind not in KINDS:
            raise UserError(
                f"{route.where}.task_type: the gateway inside the tracking server has no {route.kind}"
            )
    return _Sync(server, usage_tracking).run(gateway, models)


class _Sync:
    def __init__(self, server: Server, usage_tracking: bool) -> None:
        self.server = server
        self.usage_tracking = usage_tracking
        self.endpoints = server.listed("endpoints", "endpoints", "name")
        self.definitions = server.listed("model-definitions", "model_definitions", "name")
        self.secrets = server.listed("secrets", "secrets", "secret_name")

    def run(self, gateway: Gateway, models: dict[str, Wanted]) -> Report:
        report = Report(missing=gateway.missing())
        taken = [entry.name for entry in gateway.all() if not _ours(self.endpoints.get(entry.name))]
        if taken:
            raise UserError(
                f"the server already has an endpoint '{taken[0]}' that was not made from gateway.yaml",
                "rename one of the two; nothing was changed",
            )
        for entry in gateway.all():
            if entry.missing:
                continue
            there = self.endpoints.get(entry.name)
            changed = self.endpoint(entry, models) if isinstance(entry, Endpoint) else self.route(entry)
            outcome = report.created if there is None else report.updated if changed else report.unchanged
            outcome.append(entry.name)
        report.deleted = self.delete({entry.name for entry in gateway.all()}, models.keys())
        return report

    def endpoint(self, endpoint: Endpoint, models: dict[str, Wanted]) -> bool:
        want = models[endpoint.name]
        tags = {tag["key"]: tag.get("value") for tag in self.endpoints.get(endpoint.name, {}).get("tags", [])}
        new_key = tags.get(DIGEST_TAG) != want.digest()
        secret, changed = self.secret(endpoint.name, want, new_key=new_key)
        changed |= self.definition(endpoint.name, want, secret)
        changed |= self.linked(endpoint.name, {endpoint.name: 100}, split=False)
        if new_key:  # last, so that a run cut short writes the key again
            tag = {"endpoint_id": self.endpoints[endpoint.name]["endpoint_id"], "key": DIGEST_TAG}
            self.server.call("POST", "endpoints/set-tag", {**tag, "value": want.digest()})
        return changed

    def route(self, route: Route) -> bool:
        return self.linked(route.name, route.shares, split=True)

    def secret(self, name: str, want: Wanted, *, new_key: bool) -> tuple[str, bool]:
        there = self.secrets.get(_label(name))
        if there is None:
            body = {"secret_name": _label(name), "secret_value": want.secret, "provider": want.provider}
            body |= {"auth_config": want.settings, "created_by": OWNER}
            made = self.server.call("POST", "secrets/create", body)["secret"]
            return made["secret_id"], True
        identity: str = there["secret_id"]
        if not new_key and there.get("auth_config", {}) == want.settings:
            return identity, False
        # A blank api_base clears the settings; an empty mapping would leave them.
        settings = want.settings or {"api_base": ""}
        body = {
            "secret_id": identity,
            "secret_value": want.secret,
            "auth_config": settings,
            "updated_by": OWNER,
        }
        self.server.call("POST", "secrets/update", body)
        return identity, True

    def definition(self, name: str, want: Wanted, secret: str) -> bool:
        there = self.definitions.get(_label(name))
        body = {"secret_id": secret, "provider": want.provider, "model_name": want.model}
        if there is None:
            body |= {"name": _label(name), "created_by": OWNER}
            made = self.server.call("POST", "model-definitions/create", body)["model_definition"]
        elif any(there.get(key) != value for key, value in body.items()):
            body |= {"model_definition_id": there["model_definition_id"], "updated_by": OWNER}
            made = self.server.call("POST", "model-definitions/update", body)["model_definition"]
        else:
            return False
        self.definitions[_label(name)] = made
        return True

    def linked(self, name: str, shares: dict[str, int], *, split: bool) -> bool:
        weights = {
            self.definitions[_label(model)]["model_definition_id"]: share / 100
            for model, share in shares.items()
        }
        body: dict[str, Any] = {
            # The server cuts weight x 100 to a whole number, and a 32-bit 0.29 is a little less.
            "model_configs": [
                {"model_definition_id": key, "linkage_type": "PRIMARY", "weight": weight + 1e-6}
                for key, weight in weights.items()
            ],
            "usage_tracking": self.usage_tracking,
        }
        if split:
            body["routing_strategy"] = "REQUEST_BASED_TRAFFIC_SPLIT"
        there = self.endpoints.get(name)
        if there is None:
            body |= {"name": name, "created_by": OWNER}
            self.endpoints[name] = self.server.call("POST", "endpoints/create", body)["endpoint"]
            return True
        mappings = there.get("model_mappings", [])
        linked = {mapping["model_definition_id"]: mapping.get("weight", 0) for mapping in mappings}
        if (
            len(mappings) == len(weights)
            and linked.keys() == weights.keys()
            and all(mapping["linkage_type"] == "PRIMARY" for mapping in mappings)
            and all(abs(linked[key] - weights[key]) < 1e-4 for key in weights)
            and there.get("usage_tracking", False) == self.usage_tracking
            and (not split or there.get("routing_strategy") == body["routing_strategy"])
        ):
            return False
        body |= {"endpoint_id": there["endpoint_id"], "updated_by": OWNER}
        self.server.call("POST", "endpoints/update", body)
        return True

    def delete(self, keep: set[str], models: Iterable[str]) -> list[str]:
        """Delete what an earlier file had: endpoints, then their models, then their keys."""
        gone = [
            name
            for name, there in self.endpoints.items()
            if name not in keep and there.get("created_by") == OWNER
        ]
        for name in gone:
            self.server.call(
                "DELETE", "endpoints/delete", {"endpoint_id": self.endpoints[name]["endpoint_id"]}
            )
        labels = {_label(name) for name in models}
        for label, there in self.definitions.items():
            if label not in labels and there.get("created_by") == OWNER:
                body = {"model_definition_id": there["model_definition_id"]}
                try:
                    self.server.call("DELETE", "model-definitions/delete", body)
                except UserError as error:  # an endpoint that somebody made in the UI uses it
                    note(f"warning: model '{label}' stays: {error.message}")
        # Deleting a key would take it from every model that is left.
        left = self.server.listed("model-definitions", "model_definitions", "name").values()
        used = {definition.get("secret_id") for definition in left}
        for label, there in self.secrets.items():
            unused = label not in labels and there["secret_id"] not in used
            if unused and there.get("created_by") == OWNER:
                self.server.call("DELETE", "secrets/delete", {"secret_id": there["secret_id"]})
        return gone


def _ours(there: dict[str, Any] | None) -> bool:
    return there is None or there.get("created_by") == OWNER


def _label(name: str) -> str:
    return f"gateway.yaml: {name}"


@verb("gateway-sync", "", "Bring a server's gateway into line with gateway.yaml.", module=("gateway.sync",))
class Sync(Request):
    """The step `gateway-sync`."""

    tracking_uri: str = flag(TRACKING_URI)
    config: str = flag(flags.GATEWAY_CONFIG)
    secrets: str = flag(flags.GATEWAY_SECRETS)
    usage_tracking: bool = flag(USAGE_TRACKING)
    wait: float = flag(flags.WAIT, help="seconds to wait for a server that starts")
    json: bool = flag(flags.JSON)


def main(words: Sequence[str]) -> None:
    """Synchronise once and say what changed.

    Raises:
        UserError: the file is wrong, or the server does not answer, or refuses.
        UsageError: a word means nothing.
    """
    given = arguments.read(words, Sync)
    gateway = load(named(given.config), named(given.secrets))
    server = Server(given.tracking_uri)
    server.wait(given.wait)
    report = sync(gateway, server, usage_tracking=given.usage_tracking)
    for name, reason in report.missing.items():
        note(f"warning: {no_key(name, reason)}")
    if given.json:
        emit_json(vars(report))
    else:
        for outcome in ("created", "updated", "deleted", "unchanged"):
            for name in getattr(report, outcome):
                note(f"gateway endpoint '{name}': {outcome}")


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
