"""A proxy of this machine's is none for what runs on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def spare_loopback(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have this process, and all that it starts, reach loopback past the proxies of the environment.

    urllib, requests and botocore send requests to 127.0.0.1 to ``HTTP_PROXY``, too, unless ``NO_PROXY`` names it.

    Args:
        environ: is changed, if it names a proxy.
    """
    if not any(environ.get(name) or environ.get(name.upper()) for name in _PROXIES):
        return
    known = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    names = [name.strip() for name in known.split(",") if name.strip()]
    if "*" not in names:
        environ["no_proxy"] = environ["NO_PROXY"] = ",".join(dict.fromkeys([*names, *LOOPBACK]))
