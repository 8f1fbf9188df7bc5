"""Chromium as a person uses it, and its own record of every request that its pages and workers made."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "mlflow.test"  # resolves to loopback inside the browser alone
PATIENCE = 30_000  # milliseconds
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    # What Chromium itself would fetch gets nowhere.
    f"--host-resolver-rules=MAP {NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


@dataclass(frozen=True)
class Request:
    """One request that a page, a frame or a worker of a page made.

    Attributes:
        method: of HTTP.
        url: what was asked.
        status: of the answer; None where there was none.
    """

    method: str
    url: str
    status: int | None

    @property
    def path(self) -> str:
        """Of the URL."""
        return urlsplit(self.url).path

    @property
    def origin(self) -> str:
        """Of the URL: scheme, host and port."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


@contextmanager
def browsing(folder: Path) -> Iterator[tuple[Any, list[Request]]]:
    """A page in a Chromium with a new profile in `folder`.

    Yields:
        Playwright's page, and a list that holds its requests once the block has ended.
    """
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    log = folder / "netlog.json"
    requests: list[Request] = []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(folder / "profile"),
            executable_path=shutil.which("chromium"),
            headless=True,
            args=[*FLAGS, f"--log-net-log={log}"],
            viewport={"width": 1400, "height": 900},
        )
        context.set_default_timeout(PATIENCE)
        try:
            yield context.pages[0], requests
        finally:
            context.close()
    requests.extend(_read(json.loads(log.read_text())))


def _read(log: dict[str, Any]) -> list[Request]:
    """The web requests of a NetLog (chromium.org, "NetLog: Chrome's network logging system").

    What Chromium asks for itself (updates, accounts) has no initiator, nor has an address typed into its bar.
    """
    kinds = {number: name for name, number in log["constants"]["logEventTypes"].items()}
    started: dict[int, dict[str, Any]] = {}
    statuses: dict[int, int] = {}
    for event in log["events"]:
        details, source = event.get("params", {}), event["source"]["id"]
        if kinds[event["type"]] == "URL_REQUEST_START_JOB" and "url" in details:
            started[source] = details
        elif kinds[event["type"]] == "HTTP_TRANSACTION_READ_RESPONSE_HEADERS":
            statuses[source] = int(details["headers"][0].split()[1])
    return [
        Request(details["method"], details["url"], statuses.get(source))
        for source, details in started.items()
        if details.get("initiator") != "not an origin"
        and urlsplit(details["url"]).scheme not in {"data", "blob"}
    ]
