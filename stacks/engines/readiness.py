"""Asking a service whether it is ready."""

from __future__ import annotations

from typing import Any

SECONDS = 7.0  # longer than the server looks for its own answer (server.asgi), which says what is wrong


def probe(url: str, *, seconds: float = SECONDS) -> dict[str, Any] | None:
    """Ask a readiness URL once, past any proxy that the environment names: what we start is never behind one.

    Args:
        url: address to GET.
        seconds: how long to wait for the answer.

    Returns:
        The answer's JSON object (an empty one where it is not JSON) if the status is 200; for another status, the
        object with the further key ``problem``, which says why, or None where it does not say.
    """
    import requests  # only what waits for a service pays for it

    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(url, timeout=seconds, allow_redirects=False)
        except requests.RequestException:
            return None
    try:
        said = dict(answer.json())
    except (ValueError, TypeError):
        said = {}
    if answer.status_code == 200:
        return said
    return {**said, "problem": str(said["status"])} if "status" in said else None


def passes(answer: dict[str, Any] | None) -> bool:
    """Whether an answer of `probe` says that the service is ready."""
    return answer is not None and "problem" not in answer
