"""What an engine must know of a service beyond its template: when it runs, where it is reached, when it is ready."""

from __future__ import annotations

import ipaddress
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from stacks.catalogue import Stack
    from stacks.definition.settings import Settings


def _always(_settings: Settings, _stack: Stack) -> bool:
    return True


def _standalone(settings: Settings, stack: Stack) -> bool:
    return settings.gateway == "standalone" or "mlflow" not in stack.services


@dataclass(frozen=True)
class Service:
    """One service.

    Attributes:
        image: the image its container is made from.
        oneshot: it does its work and ends with exit code 0.
        wanted: whether it runs with these settings in this stack.
        checks_external: whether, with these settings, it tries something that the stack does not start itself.
        port: the setting that holds the port it publishes for people; None publishes nothing.
        local_port: the port it listens on beside that on the host engine, on 127.0.0.1.
        readiness: path of the URL that answers 200 once it is ready.
    """

    image: str = "mlflow"
    oneshot: bool = False
    wanted: Callable[[Settings, Stack], bool] = _always
    checks_external: Callable[[Settings], bool] = lambda _settings: False
    port: Callable[[Settings], int] | None = None
    local_port: Callable[[Settings], int] | None = None
    readiness: str = "/"

    def url(self, settings: Settings) -> str | None:
        """The address a person opens."""
        return f"http://{_reachable(settings.host)}:{self.port(settings)}" if self.port else None


# All of a stack start at once, and each waits by itself for what it needs: loading MLflow takes longer than anything
# that it could wait for.
SERVICES: dict[str, Service] = {
    "postgres": Service(
        image="postgres",
        wanted=lambda settings, _: not settings.database,
        local_port=lambda settings: settings.postgres_port,
    ),
    "role": Service(oneshot=True, wanted=lambda settings, _: not settings.database),
    "object-store": Service(
        image="object-store",
        wanted=lambda settings, _: settings.object_store != "external",
        local_port=lambda settings: settings.object_store_port,
    ),
    "bucket": Service(oneshot=True, checks_external=lambda settings: settings.object_store == "external"),
    "schema": Service(oneshot=True, checks_external=lambda settings: bool(settings.database)),
    "mlflow": Service(port=lambda settings: settings.port, readiness="/ready"),
    "cleanup": Service(wanted=lambda settings, _: bool(settings.cleanup_schedule)),
    "gateway-sync": Service(oneshot=True, wanted=lambda settings, stack: not _standalone(settings, stack)),
    "gateway": Service(wanted=_standalone, port=lambda settings: settings.gateway_port, readiness="/health"),
}


def _reachable(host: str) -> str:
    """The address to open for a service that listens on `host` (all interfaces are reached by loopback)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{host}]" if address.version == 6 else host


def probe(url: str, *, seconds: float = 3.0) -> dict[str, Any] | None:
    """Ask a readiness URL once.

    Args:
        url: address to GET.
        seconds: how long to wait for the answer.

    Returns:
        The answer's JSON object (an empty one where it is not JSON) if the status is 200; for another status, the
        object with the further key ``problem``, which says why, or None where it does not say.
    """
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310 (our own http URL)
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        try:
            said = dict(json.load(error))
            return {**said, "problem": str(said["status"])}
        except (ValueError, TypeError, KeyError, OSError):
            return None
    except ValueError:
        return {}
    except (urllib.error.URLError, OSError):
        return None


def passes(answer: dict[str, Any] | None) -> bool:
    """Whether an answer of `probe` says that the service is ready."""
    return answer is not None and "problem" not in answer
