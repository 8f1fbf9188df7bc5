"""What engines and verbs know of a service beside its templates: one entry each, and no other place names one."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.upstream import FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from stacks.catalogue import Stack
    from stacks.definition.settings import Settings


def _always(_settings: Settings, _stack: Stack) -> bool:
    return True


def _standalone(settings: Settings, stack: Stack) -> bool:
    return settings.gateway == "standalone" or "mlflow" not in stack.services


@dataclass(frozen=True)
class Secret:
    """A secret that a service makes necessary: made once, at the first `up`.

    Attributes:
        name: of its file.
        size: random bytes in it, written as hexadecimal text.
        prefix: text before them.
        rotated: a rotation renews it; what only names somebody is no secret and stays.
        keeps_previous: during a rotation the value before it is at hand too, as ``NAME-previous``, for what must be
            opened with it a last time.
    """

    name: str
    size: int = 24
    prefix: str = ""
    rotated: bool = True
    keeps_previous: bool = False


@dataclass(frozen=True)
class Service:
    """One service: all that engines and verbs know of it beside its templates.

    Attributes:
        image: the image its container is made from.
        fetched: another image with these settings, by its name in images.catalogue.FETCHED; it is never built here.
        oneshot: it does its work and ends with exit code 0.
        wanted: whether it runs with these settings in this stack.
        checks_external: whether, with these settings, it tries something that the stack does not start itself.
        external: what of that is not ours to change, and where it is changed.
        port: the setting that holds the port it publishes for people; None publishes nothing.
        local_port: the port it listens on beside that on the host engine, on 127.0.0.1.
        greeting: what a service at `local_port` answers at once, if it is well.
        readiness: path of the URL that answers 200 once it is ready.
        serves: it is the tracking server; maintenance commands run in its container.
        writes: it changes the stores, so it is stopped where they must stand still.
        keeps_data: it is a store, which has to run for whatever works on the data.
        database: the folder in its container that a volume with a database may be mounted on.
        before_schema: it is needed before the schema can be looked at.
        reads_gateway: it reads gateway.yaml and the provider keys.
        oldest_mlflow: the first version of MLflow that it works with.
        instead: what to do with an older one.
        secrets: those that exist because of it.
        folders: folders of the state directory that it needs on the host engine.
    """

    image: str = "mlflow"
    fetched: Callable[[Settings], str] = lambda _settings: ""
    oneshot: bool = False
    wanted: Callable[[Settings, Stack], bool] = _always
    checks_external: Callable[[Settings], bool] = lambda _settings: False
    external: str = ""
    port: Callable[[Settings], int] | None = None
    local_port: Callable[[Settings], int] | None = None
    greeting: bytes = b""
    readiness: str = "/"
    serves: bool = False
    writes: bool = False
    keeps_data: bool = False
    database: str = ""
    before_schema: bool = False
    reads_gateway: bool = False
    oldest_mlflow: str = "0"
    instead: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    folders: tuple[str, ...] = ()

    def url(self, settings: Settings) -> str | None:
        """The address a person opens."""
        return f"http://{reachable(settings.host)}:{self.port(settings)}" if self.port else None

    def ready_url(self, settings: Settings) -> str | None:
        """The address that answers 200 once it is ready."""
        url = self.url(settings)
        return url and url + self.readiness

    def ports(self, settings: Settings) -> tuple[int, ...]:
        """All that it may listen on at this machine."""
        return tuple(port(settings) for port in (self.port, self.local_port) if port)


# All of a stack start at once, and each waits by itself for what it needs: loading MLflow takes longer than anything
# that it could wait for.
SERVICES: dict[str, Service] = {
    "postgres": Service(
        image="postgres",
        wanted=lambda settings, _: not settings.database,
        local_port=lambda settings: settings.postgres_port,
        greeting=bytes.fromhex("0000000804d2162f"),  # SSLRequest (PostgreSQL manual, 54.7 Message Formats)
        keeps_data=True,
        database="/var/lib/postgresql",
        before_schema=True,
        secrets=(Secret("postgres-password", keeps_previous=True), Secret("database-password")),
    ),
    "role": Service(oneshot=True, wanted=lambda settings, _: not settings.database, before_schema=True),
    "object-store": Service(
        image="object-store",
        fetched=lambda settings: "rustfs" if settings.object_store == "rustfs" else "",
        wanted=lambda settings, _: settings.object_store != "external",
        local_port=lambda settings: settings.object_store_port,
        greeting=b"HEAD / HTTP/1.0\r\n\r\n",
        keeps_data=True,
        before_schema=True,
        secrets=(
            Secret("object-store-root-user", size=8, prefix="root", rotated=False),
            Secret("object-store-root-password"),
            Secret("object-store-key", size=8, prefix="mlflow", rotated=False),
            Secret("object-store-secret"),
        ),
        folders=("data/objects",),
    ),
    "bucket": Service(
        oneshot=True,
        checks_external=lambda settings: settings.object_store == "external",
        external="the key of your own object store; change it there and in s3_access_key, s3_secret_key",
        before_schema=True,
    ),
    "schema": Service(
        oneshot=True,
        checks_external=lambda settings: bool(settings.database),
        external="the password of your own PostgreSQL; change it there and in the setting 'database'",
    ),
    "mlflow": Service(
        port=lambda settings: settings.port,
        readiness="/ready",
        serves=True,
        writes=True,
        database="/var/lib/mlflow",
    ),
    "cleanup": Service(wanted=lambda settings, _: bool(settings.cleanup_schedule), writes=True),
    "gateway-sync": Service(
        oneshot=True,
        wanted=lambda settings, stack: not _standalone(settings, stack),
        reads_gateway=True,
        oldest_mlflow=FEATURES["gateway"].since,
        instead=("until then the AI gateway as a process of its own:", "invoke up --set gateway=standalone"),
        secrets=(Secret("gateway-passphrase", size=32, keeps_previous=True),),
    ),
    "gateway": Service(
        wanted=_standalone,
        oldest_mlflow=FEATURES["standalone"].since,
        port=lambda settings: settings.gateway_port,
        readiness="/health",
        reads_gateway=True,
    ),
}


def reachable(host: str) -> str:
    """The address to open for a service that listens on `host` (all interfaces are reached by loopback)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{host}]" if address.version == 6 else host
