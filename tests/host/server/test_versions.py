"""What we lean on in MLflow, and what works with it, in environments with the versions that a stack may run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from packaging.version import Version

from develop.versions import TRIED
from images.lock import for_version
from server.upstream import FEATURES, TABLE
from stacks.state.environments import install, installed
from tests.support.provider import KEY, provider
from tests.support.running import Running, clean_environment, launch, request, request_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CREATE = "/api/2.0/mlflow/experiments/create"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
CHAT = {"model": "first", "messages": [{"role": "user", "content": "hello?"}]}


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The interpreter of an environment with a version of MLflow, made as a stack's is."""
    folder = tmp_path_factory.mktemp("environments")

    def python(version: str) -> str:
        if version == installed():
            return sys.executable
        target = folder / version
        if not target.exists():
            install(version, for_version(version, folder, local=True), target, bytecode=False)
        return str(target / "bin" / "python")

    return python


@pytest.fixture
def base() -> Iterator[str]:
    with provider() as url:
        yield url


@pytest.mark.parametrize("version", TRIED)
def test_mlflow_has_what_we_lean_on(environments: Callable[[str], str], version: str) -> None:
    answer = subprocess.run(
        [environments(version), "-W", "ignore", "-m", "server.upstream"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert json.loads(answer.stdout) == {"mlflow": version, "checked": len(TABLE), "wrong": {}}


@pytest.mark.parametrize("version", TRIED[:-1])
def test_what_is_said_to_work_works(
    environments: Callable[[str], str], version: str, base: str, tmp_path: Path
) -> None:
    """The newest is what all other tests run with."""
    python = environments(version)
    env = _settings(tmp_path, base)

    def start(*command: str, **more: str) -> Running:
        return launch(tmp_path, *command, "--port", "{port}", env={**env, **more}, python=python)

    def synchronise(server: Running) -> int:
        command = [python, "-m", "gateway.sync", "--tracking-uri", server.url]
        environment = clean_environment(env)
        return subprocess.run(
            command, env=environment, capture_output=True, check=False, timeout=120
        ).returncode

    works = {}
    gateway = start("gateway")
    server = start("server", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="true")
    try:
        works["jobs"] = _comes_up(server, "/ready")
        if works["jobs"]:
            assert any("_job_runner" in " ".join(process.cmdline()) for process in server.family())
        else:
            assert "error: this version of MLflow has no background jobs" in server.tail()
            server = start("server")
        server.wait_ready()
        works["server"] = request_json(f"{server.url}/ready")[1] == {"status": "ready", "version": version}
        works["hosts"] = _refuses_strangers(server)
        works["gateway"] = synchronise(server) == 0 and _chats(f"{server.url}/gateway/mlflow/v1")
        works["standalone"] = _comes_up(gateway, "/health") and _chats(f"{gateway.url}/v1")
    finally:
        server.stop()
        gateway.stop()
    tried = {name: feature for name, feature in FEATURES.items() if not feature.shown_by}
    assert works == {name: Version(feature.since) <= Version(version) for name, feature in tried.items()}


def _settings(folder: Path, base: str) -> dict[str, str]:
    """What both gateways and the server are told."""
    config = {"openai_api_key": "provider_key", "openai_api_base": base}
    model = {"provider": "openai", "name": "model", "config": config}
    endpoints = [{"name": "first", "endpoint_type": "llm/v1/chat", "model": model}]
    (folder / "gateway.yaml").write_text(yaml.safe_dump({"endpoints": endpoints}))
    (folder / "secrets").mkdir()
    (folder / "secrets" / "provider_key").write_text(KEY)
    return {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_GATEWAY_CONFIG": str(folder / "gateway.yaml"),
        "_MLFLOW_STACKS_GATEWAY_SECRETS": str(folder / "secrets"),
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": "a passphrase of the test, long enough for it",
    }


def _comes_up(running: Running, path: str) -> bool:
    """Whether it serves; a program that cannot ends instead."""
    running.until(
        "it serves or ends", lambda: running.process.poll() is not None or running.answers(path), alive=False
    )
    return running.process.poll() is None


def _refuses_strangers(server: Running) -> bool:
    """Whether a strange Host and a strange origin are both refused; one of the two alone is nothing we know of."""
    headers = {"Origin": "https://evil.example", "Content-Type": "application/json"}
    origin = request(server.url + CREATE, method="POST", headers=headers, body=b'{"name": "strange"}')[0]
    host = request(server.url + SEARCH, headers={"Host": "evil.example"})[0]
    assert (host, origin) in {(403, 403), (200, 200)}
    return host == 403


def _chats(base: str) -> bool:
    answer: tuple[int, Any] = request_json(f"{base}/chat/completions", CHAT)
    return answer[0] == 200
