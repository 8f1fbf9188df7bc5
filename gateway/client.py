"""The REST API of the gateway inside a tracking server (``/api/3.0/mlflow/gateway``)."""

from __future__ import annotations

import os
import time
from typing import Any

import requests

from console import UserError

SECONDS = 60.0  # that one call may take


class Server:
    """One tracking server's gateway.

    It is asked directly: a proxy of the environment (``HTTP_PROXY``) is for the world outside, and cannot reach a
    server on this machine or in a stack's own network.

    Args:
        uri: of the tracking server.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        # What trust_env would have read besides: who vouches for a server with TLS.
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make one call.

        Raises:
            UserError: the server does not answer, or refuses.
        """
        address = f"{self.uri}/api/3.0/mlflow/gateway/{path}"
        try:
            answer = self._session.request(method, address, json=body, timeout=SECONDS)
            if answer.ok:
                result: dict[str, Any] = answer.json()
                return result
        except requests.RequestException as error:  # a body that is no JSON, too
            raise UserError(f"the tracking server does not answer: {error}", f"server: {self.uri}") from None
        try:
            reason = answer.json()["message"]
        except (ValueError, KeyError, TypeError):
            reason = answer.text[:200]
        raise UserError(f"the tracking server refuses {path}: {reason}", f"server: {self.uri}")

    def wait(self, seconds: float) -> None:
        """Wait until the server is ready; when it does not become so, the first call says why."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self._session.get(f"{self.uri}/ready", timeout=seconds).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.1)

    def listed(self, path: str, key: str, name: str) -> dict[str, dict[str, Any]]:
        """List all things of a kind by name."""
        return {entry[name]: entry for entry in self.call("GET", f"{path}/list").get(key, [])}
