"""What an engine must know of a service beyond its template: where it is reached and when it is ready."""

from __future__ import annotations

import ipaddress
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stacks.settings import Settings


@dataclass(frozen=True)
class Service:
    """One service.

    Attributes:
        image: the image its container is made from.
        oneshot: it does its work and ends with exit code 0, before the next service starts.
        port: the setting that holds the port it publishes; None publishes nothing.
        readiness: path of the URL that answers 200 once it is ready.
    """

    image: str = "mlflow"
    oneshot: bool = False
    port: Callable[[Settings], int] | None = None
    readiness: str = "/"

    def url(self, settings: Settings) -> str | None:
        """The address a person opens."""
        return f"http://{_reachable(settings.host)}:{self.port(settings)}" if self.port else None


SERVICES: dict[str, Service] = {
    "schema": Service(oneshot=True),
    "mlflow": Service(port=lambda settings: settings.port, readiness="/ready"),
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


def probe(url: str, *, seconds: float = 3.0) -> dict[str, str] | None:
    """Ask a readiness URL once.

    Args:
        url: address to GET.
        seconds: how long to wait for the answer.

    Returns:
        The answer's JSON object (an empty one where it is not JSON) if the status is 200, else None.
    """
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310 (our own http URL)
            return dict(json.load(answer))
    except ValueError:
        return {}
    except (urllib.error.URLError, OSError):
        return None
