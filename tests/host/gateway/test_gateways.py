"""Real round trips: a client, either gateway, and a provider that the test serves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import openai
import pytest
import yaml

from tests.support.provider import KEY, WORDS, provider
from tests.support.running import Running, clean_environment, launch, request, request_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = "".join(WORDS)
QUESTION: list[Any] = [{"role": "user", "content": "hello?"}]
MISSING = "endpoint 'keyless' has no provider key: there is no secret file {}/absent"


def openai_endpoint(
    name: str, base: str, *, kind: str = "chat", key: str = "$TEST_PROVIDER_KEY"
) -> dict[str, Any]:
    config = {"openai_api_key": key, "openai_api_base": base}
    model = {"provider": "openai", "name": f"model-of-{name}", "config": config}
    return {"name": name, "endpoint_type": f"llm/v1/{kind}", "model": model}


def example(base: str) -> dict[str, Any]:
    """Two endpoints that work, one without its key, and a route that shares requests."""
    shares = [{"name": "first", "traffic_percentage": 29}, {"name": "second", "traffic_percentage": 71}]
    return {
        "endpoints": [
            openai_endpoint("first", base),
            openai_endpoint("second", base, key="provider_key"),
            openai_endpoint("vectors", base, kind="embeddings"),
            openai_endpoint("keyless", base, key="absent"),
        ],
        "routes": [{"name": "shared", "task_type": "llm/v1/chat", "destinations": shares}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the provider's key in its secrets, under two names."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "secrets").mkdir()
    for name in ("provider_key", "TEST_PROVIDER_KEY"):
        (folder / "secrets" / name).write_text(f"{KEY}\n")
    return folder


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with provider() as url:
        yield url


@pytest.fixture(scope="module")
def settings(folder: Path, base: str) -> dict[str, str]:
    """Write the configuration; gives what both gateways are told."""
    (folder / "gateway.yaml").write_text(yaml.safe_dump(example(base)))
    return {
        "MLFLOW_GATEWAY_CONFIG": str(folder / "gateway.yaml"),
        "_MLFLOW_STACKS_GATEWAY_SECRETS": str(folder / "secrets"),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": "a passphrase of the test, long enough for it",
        "MLFLOW_SERVER_SECRETS_CACHE_TTL": "10",
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
    }


@pytest.fixture(scope="module")
def standalone(folder: Path, settings: dict[str, str]) -> Iterator[Running]:
    gateway = launch(folder, "gateway", "--port", "{port}", env=settings)
    yield gateway.wait_ready("/health")
    gateway.stop()


@pytest.fixture(scope="module")
def server(folder: Path, settings: dict[str, str]) -> Iterator[Running]:
    """Start a tracking server and synchronise its gateway once."""
    server = launch(folder, "server", "--port", "{port}", env=settings).wait_ready()
    assert synchronise(server, folder, settings)["created"] == ["first", "second", "vectors", "shared"]
    yield server
    server.stop()


def synchronise(server: Running, folder: Path, settings: dict[str, str], *flags: str, code: int = 0) -> Any:
    """Run `gateway.sync`: its JSON, or its errors when it fails as expected."""
    command = [sys.executable, "-m", "gateway.sync", "--tracking-uri", server.url, "--json", *flags]
    answer = subprocess.run(
        command, cwd=folder, env=clean_environment(settings), capture_output=True, text=True, check=False
    )
    assert answer.returncode == code, f"{answer.stderr}\n{server.tail()}"
    assert KEY not in answer.stdout + answer.stderr + server.log.read_text()
    return answer.stderr if code else json.loads(answer.stdout)


@pytest.fixture(scope="module", params=["standalone", "server"])
def gateway(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Either gateway: the base URL that an OpenAI client takes for chat, and the one for embeddings."""
    url = request.getfixturevalue(request.param).url
    if request.param == "standalone":
        return f"{url}/v1", f"{url}/v1"
    return f"{url}/gateway/mlflow/v1", f"{url}/gateway/openai/v1"


def test_the_openai_client_chats_streams_and_embeds(gateway: tuple[str, str]) -> None:
    chat, embeddings = (openai.OpenAI(base_url=url, api_key="none", max_retries=0) for url in gateway)
    for model in ("first", "second", "shared"):
        answer = chat.chat.completions.create(model=model, messages=QUESTION)
        assert answer.choices[0].message.content == TEXT, model
    chunks = list(chat.chat.completions.create(model="first", messages=QUESTION, stream=True))
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert tuple(word for word in words if word) == WORDS
    vector = embeddings.embeddings.create(model="vectors", input="hello", encoding_format="float")
    assert vector.data[0].embedding == [0.25, -0.5]


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_curl_chats_and_streams(gateway: tuple[str, str]) -> None:
    for stream in (False, True):
        body = json.dumps({"model": "first", "messages": QUESTION, "stream": stream})
        command = ["curl", "--silent", "--no-buffer", "--header", "Content-Type: application/json"]
        answer = subprocess.run(
            [*command, "--data", body, f"{gateway[0]}/chat/completions"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if not stream:
            assert json.loads(answer)["choices"][0]["message"]["content"] == TEXT
            continue
        events = [line.removeprefix("data: ") for line in answer.splitlines() if line.startswith("data: ")]
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events if event != "[DONE]"]
        assert "".join(delta.get("content") or "" for delta in deltas) == TEXT


def test_only_the_endpoint_without_its_key_refuses_and_names_the_file(
    gateway: tuple[str, str], folder: Path
) -> None:
    body = {"model": "keyless", "messages": QUESTION}
    reason = MISSING.format(folder / "secrets")
    status, answer = request_json(f"{gateway[0]}/chat/completions", body)
    assert (status, answer["detail"], answer["error"]["message"]) == (503, reason, reason)
    client = openai.OpenAI(base_url=gateway[0], api_key="none", max_retries=0)
    with pytest.raises(openai.APIStatusError, match="absent"):
        client.chat.completions.create(model="keyless", messages=QUESTION)
    assert request_json(f"{gateway[0]}/chat/completions", {**body, "model": "nosuch"})[0] == 404
    assert request_json(f"{gateway[0]}/chat/completions", {**body, "model": "first"})[0] == 200


def test_the_standalone_gateway_checks_hosts_and_serves_endpoints_by_path(
    standalone: Running, folder: Path
) -> None:
    chat = json.dumps({"messages": QUESTION}).encode()
    path = "/gateway/first/invocations"
    for host, expected in (
        ("localhost:5556", 200),
        ("[::1]:5556", 200),
        ("127.0.0.1", 200),
        ("evil.example", 403),
    ):
        headers = {"Host": host, "Content-Type": "application/json"}
        status = request(standalone.url + path, method="POST", headers=headers, body=chat)[0]
        assert status == expected, host
    assert request(f"{standalone.url}/health", headers={"Host": "evil.example"})[0] == 200
    status, answer = request_json(f"{standalone.url}/gateway/keyless/invocations", {"messages": QUESTION})
    assert (status, answer["detail"]) == (503, MISSING.format(folder / "secrets"))
    assert len(standalone.family()) == 1
    assert f"warning: {MISSING.format(folder / 'secrets')}" in standalone.log.read_text()
    assert KEY not in standalone.log.read_text()


def test_a_gateway_without_endpoints_starts_and_ends_cleanly(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("endpoints: []\n")
    gateway = launch(tmp_path, "gateway", "--port", "{port}", "--config", "gateway.yaml").wait_ready(
        "/health"
    )
    gateway.process.terminate()
    assert gateway.exit_code() == 0, gateway.tail()


def test_a_wrong_file_is_told_before_the_start(tmp_path: Path) -> None:
    endpoint = openai_endpoint("chat", "http://127.0.0.1/v1")
    endpoint["model"]["config"]["openai_api_bse"] = "x"
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump({"endpoints": [endpoint]}, sort_keys=False))
    gateway = launch(tmp_path, "gateway", "--port", "{port}", "--config", "gateway.yaml")
    assert gateway.exit_code() == 1
    assert gateway.log.read_text() == (
        "error: gateway.yaml: endpoints[0].model.config.openai_api_bse: unknown key\n"
        "  file: gateway.yaml, line 10\n"
        "  did you mean: openai_api_base\n"
    )


def test_synchronising_again_changes_nothing_and_follows_the_file(
    server: Running, folder: Path, settings: dict[str, str], base: str
) -> None:
    api = f"{server.url}/api/3.0/mlflow/gateway"

    def state() -> dict[str, Any]:
        return {
            kind: request_json(f"{api}/{kind}/list")[1]
            for kind in ("endpoints", "model-definitions", "secrets")
        }

    before = state()
    report = synchronise(server, folder, settings)
    assert (report["created"], report["updated"], report["deleted"]) == ([], [], [])
    assert report["unchanged"] == ["first", "second", "vectors", "shared"]
    assert list(report["missing"]) == ["keyless"]
    assert state() == before
    assert KEY not in json.dumps(before)

    # What a user made in the UI, with a model of ours.
    theirs = next(
        d["model_definition_id"]
        for d in before["model-definitions"]["model_definitions"]
        if "second" in d["name"]
    )
    models = [{"model_definition_id": theirs, "linkage_type": "PRIMARY", "weight": 1}]
    made = request_json(
        f"{api}/endpoints/create", {"name": "theirs", "model_configs": models, "usage_tracking": False}
    )
    assert made[0] == 200

    other = folder / "other.yaml"
    other.write_text(
        yaml.safe_dump({"endpoints": [openai_endpoint("first", base + "/deeper", key="provider_key")]})
    )
    report = synchronise(server, folder, settings, "--config", str(other))
    assert (report["created"], report["updated"]) == ([], ["first"])
    assert sorted(report["deleted"]) == ["second", "shared", "vectors"]
    names = [endpoint["name"] for endpoint in request_json(f"{api}/endpoints/list")[1]["endpoints"]]
    assert sorted(names) == ["first", "theirs"]
    chat = f"{server.url}/gateway/mlflow/v1/chat/completions"
    assert request_json(chat, {"model": "theirs", "messages": QUESTION})[0] == 200
    assert synchronise(server, folder, settings, "--config", str(other))["updated"] == []

    def answers(status: int) -> bool:
        return request_json(chat, {"model": "first", "messages": QUESTION})[0] == status

    # Another key is seen, and used once the server's cache of keys has run out.
    (folder / "secrets" / "provider_key").write_text("another key")
    assert synchronise(server, folder, settings, "--config", str(other))["updated"] == ["first"]
    server.until("the new key is used, which the provider refuses", lambda: answers(401))
    (folder / "secrets" / "provider_key").write_text(KEY)
    assert synchronise(server, folder, settings, "--config", str(other))["updated"] == ["first"]

    other.write_text(yaml.safe_dump({"endpoints": [openai_endpoint("theirs", base)]}))
    problem = synchronise(server, folder, settings, "--config", str(other), code=1)
    assert "already has an endpoint 'theirs' that was not made from gateway.yaml" in problem

    limited = {**openai_endpoint("first", base), "limit": {"calls": 1, "renewal_period": "minute"}}
    other.write_text(yaml.safe_dump({"endpoints": [limited]}))
    problem = synchronise(server, folder, settings, "--config", str(other), code=1)
    assert problem.startswith(
        "error: endpoints[0].limit: the gateway inside the tracking server has no limit"
    )

    assert synchronise(server, folder, settings)["created"] == ["second", "vectors", "shared"]
