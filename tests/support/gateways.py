"""A gateway before a provider of our own, and what it must answer to the OpenAI client and to curl."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.provider import KEY, WORDS

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "".join(WORDS)
QUESTION: list[Any] = [{"role": "user", "content": "hello?"}]


def gateway_yaml(base: str) -> str:
    """An endpoint that works and one without its key."""
    endpoints = [
        {
            "name": name,
            "endpoint_type": "llm/v1/chat",
            "model": {
                "provider": "openai",
                "name": f"model-of-{name}",
                "config": {"openai_api_key": key, "openai_api_base": base},
            },
        }
        for name, key in (("first", "provider-key"), ("keyless", "absent-key"))
    ]
    return json.dumps({"endpoints": endpoints}, indent=2)  # JSON is YAML


def write_gateway(folder: Path, base: str) -> dict[str, object]:
    """Write gateway.yaml and the one key; the settings that name them."""
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / "provider-key").write_text(f"{KEY}\n")
    (folder / "gateway.yaml").write_text(gateway_yaml(base))
    return {"gateway_config": folder / "gateway.yaml", "gateway_keys": folder / "keys"}


def chat(base_url: str, model: str) -> str | None:
    """Ask one question with the OpenAI client; the answer."""
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    return client.chat.completions.create(model=model, messages=QUESTION).choices[0].message.content


def gateway_answers(base_url: str) -> None:
    """The OpenAI client and curl chat and stream; the endpoint without its key, and it alone, says what it lacks."""
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    assert chat(base_url, "first") == TEXT
    chunks = client.chat.completions.create(model="first", messages=QUESTION, stream=True)
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert tuple(word for word in words if word) == WORDS
    lacking = "endpoint 'keyless' has no provider key: there is no secret file"
    with pytest.raises(openai.APIStatusError, match=lacking) as refusal:
        chat(base_url, "keyless")
    assert refusal.value.status_code == 503
    body = json.dumps({"model": "first", "messages": QUESTION, "stream": True})
    command = [
        "curl",
        "--silent",
        "--no-buffer",
        "--header",
        "Content-Type: application/json",
        "--data",
        body,
    ]
    lines = subprocess.run(
        [*command, f"{base_url}/chat/completions"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events if event != "[DONE]"]
    assert "".join(delta.get("content") or "" for delta in deltas) == TEXT
