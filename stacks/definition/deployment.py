"""A deployment: a stack with its settings at its place on this machine. Pure data; `stacks.state.opening` reads it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stacks.definition.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stacks.catalogue import Stack
    from stacks.definition.settings import Settings


RESERVE_NAME = "reserve"  # the file of room that is set aside (stacks.state.reserve)


@dataclass(frozen=True)
class Record:
    """What the state directory remembers of the last `up`; the default is that of a stack that never was.

    Attributes:
        stack: its name.
        engine: that it was brought up on; empty where there was no `up`.
        project: its name on this machine.
        place: absolute path of its state directory then; it may have been moved since.
        socket: of its supervisord.
        generation: how often its secrets were rotated.
        mlflow_version: that it runs.
        images: image reference by image name (compose engine).
        secrets: names of the secrets made so far.
        exported: provider keys that came from the environment, by the variable's name.
        down: it was taken down since.
        settings: those that were chosen beyond the stack's file, by name; none of them is secret.
        version: of this project, which wrote it; empty for one before 0.1.0 said so.
    """

    stack: str = ""
    engine: str = ""
    project: str = ""
    place: str = ""
    socket: str = ""
    generation: int = 0
    mlflow_version: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    exported: tuple[str, ...] = ()
    down: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True)
class GatewayInputs:
    """What the gateway is given.

    Attributes:
        config: the text of gateway.yaml.
        keys: provider keys by file name.
        exported: those of them that the environment gave.
        missing: names of endpoints and routes that lack a key, each with which one.
    """

    config: str
    keys: Mapping[str, str] = field(repr=False)
    exported: tuple[str, ...] = field(default=(), compare=False)
    missing: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def digest(self) -> str:
        """Changes whenever gateway.yaml or a provider key does, and tells neither."""
        digest = hashlib.sha256(self.config.encode())
        for name, key in sorted(self.keys.items()):
            digest.update(name.encode() + hashlib.sha256(key.encode()).digest()[:4])
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Deployment:
    """What rendering and the engines work on.

    Attributes:
        stack: the entry of the catalogue.
        settings: the merged settings; the secrets among them are taken out.
        state: absolute path of this stack's state directory.
        project: name that tells this stack from every other on the machine; it stays when the checkout is moved.
        root: absolute path of the checkout (processes of the host engine import from it).
        python: the interpreter that the host engine runs.
        mlflow_python: the one that finds this stack's MLflow (host engine).
        mlflow_version: of the MLflow that this stack runs.
        workers: worker processes of the tracking server.
        socket: supervisord's control socket.
        postgres_data: PostgreSQL's cluster on the host engine.
        images: image reference by image name (compose engine).
        given_secrets: secrets that the user gave through settings, by name of the secret.
        generation: how often the secrets were rotated; counts one that was begun.
        gateway: what its gateway is given, checked; None where it has none.
        recorded: what the last `up` left to know, as it was when the deployment was opened.
    """

    stack: Stack
    settings: Settings
    state: Path
    project: str
    root: Path
    python: str
    mlflow_python: str
    mlflow_version: str
    workers: int
    socket: Path
    postgres_data: Path
    images: Mapping[str, str] = field(default_factory=dict)
    given_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    generation: int = 0
    gateway: GatewayInputs | None = None
    recorded: Record = field(default_factory=Record)

    @property
    def name(self) -> str:
        """The stack's name."""
        return self.stack.name

    @property
    def services(self) -> tuple[str, ...]:
        """The services that run with these settings, in start order; what an external store needs comes first."""
        return services_of(self.stack, self.settings)

    def having(self, trait: str) -> list[str]:
        """The names of its services whose entry says so, in start order.

        Args:
            trait: an attribute of `Service`, such as ``writes``.
        """
        return [name for name in self.services if getattr(SERVICES[name], trait)]

    @property
    def server(self) -> str:
        """The service that is the tracking server; empty where there is none."""
        return next(iter(self.having("serves")), "")

    @property
    def reserves(self) -> list[Path]:
        """Where room is set aside on this machine: on each place of data, and root's PostgreSQL has one of its own."""
        places = [self.state, self.postgres_data.parent]
        return [
            place / RESERVE_NAME
            for place in places
            if place == self.state or not place.is_relative_to(self.state)
        ]

    @property
    def rotated(self) -> list[str]:
        """The names of the secrets that a rotation renews."""
        return [
            secret.name for service in self.services for secret in SERVICES[service].secrets if secret.rotated
        ]

    @property
    def gateway_digest(self) -> str:
        """See `GatewayInputs.digest`; empty where there is no gateway."""
        return self.gateway.digest if self.gateway else ""

    @property
    def gateway_base_url(self) -> str | None:
        """The base URL that an OpenAI client takes, where there is a gateway."""
        if "gateway" in self.services:
            return f"{SERVICES['gateway'].url(self.settings)}/v1"
        return (
            f"{SERVICES['mlflow'].url(self.settings)}/gateway/mlflow/v1"
            if "gateway-sync" in self.services
            else None
        )


def services_of(stack: Stack, settings: Settings) -> tuple[str, ...]:
    """The services of a stack that run with some settings; see `Deployment.services`."""
    wanted = [name for name in stack.services if SERVICES[name].wanted(settings, stack)]
    return tuple(sorted(wanted, key=lambda name: not SERVICES[name].checks_external(settings)))
