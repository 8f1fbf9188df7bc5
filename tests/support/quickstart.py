"""What quickstart must do and withstand on either engine: the tests that both engines run, and what they share."""

from __future__ import annotations

import http.client
import shutil
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_port, free_ports
from develop.scratch.stack import StackUnderTest
from stacks.definition.settings import ROOT
from tests.support import answers, story
from tests.support.gateways import TEXT, chat, gateway_answers, write_gateway
from tests.support.inside import Inside, model_is_in_both_stores
from tests.support.provider import provider
from tests.support.secrecy import (
    lost_secret_is_named,
    no_secret_in,
    roles_are_modest,
    secret_files_are_closed,
    what_anybody_can_read,
)
from tests.support.survival import artifacts_survive, big_artifact, metrics_survive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def one_of_two_wins(stack: StackUnderTest, setting: str) -> None:
    """Two `up` at once, both with something to do: one does it, the other says who is at it."""
    words = ("up", f"--stack={stack.name}", "--set", setting)
    rivals = [stack.start(*words), stack.start(*words)]
    answers = [rival.communicate(timeout=300)[1] for rival in rivals]
    assert sorted(rival.returncode for rival in rivals) == [0, 1], answers
    loser = next(answer for rival, answer in zip(rivals, answers, strict=True) if rival.returncode == 1)
    winner = next(rival for rival in rivals if rival.returncode == 0)
    assert (
        f"error: stack '{stack.name}' is being changed: its lock is held by invoke up (process {winner.pid} on "
        in loser
    )


def foreign_headers_are_refused(stack: StackUnderTest) -> None:
    """The server answers to its own names and to its own pages, and to no others."""

    def ask(**headers: str) -> int:
        body = '{"max_results": 1}'
        connection = http.client.HTTPConnection("127.0.0.1", int(str(stack.settings["port"])), timeout=60)
        connection.request(
            "POST",
            "/api/2.0/mlflow/experiments/search",
            body,
            {"Content-Type": "application/json", **headers},
        )
        with closing(connection):
            return connection.getresponse().status

    port = stack.settings["port"]
    assert ask() == ask(Host=f"localhost:{port}") == ask(Host="mlflow:5000") == 200
    assert ask(Host=f"127.0.0.1:{port}", Origin=f"http://127.0.0.1:{port}") == 200
    assert ask(Host="evil.example") == ask(Host="postgres:5000") == 403
    assert ask(Host=f"localhost:{port}", Origin="http://evil.example") == 403


@contextmanager
def taken_down(stack: StackUnderTest) -> Iterator[StackUnderTest]:
    """Remove a stack at the end, its data too, if it was ever begun."""
    try:
        yield stack
    finally:
        if (stack.state / "stack.json").exists():
            stack.down("--volumes", "--yes")


@contextmanager
def running(engine: str, folder: Path, host: str = "127.0.0.1") -> Iterator[StackUnderTest]:
    """Quickstart, up, with a provider behind its gateway that listens on `host`."""
    with provider(host) as base:
        settings = free_ports() | write_gateway(folder, base)
        with taken_down(StackUnderTest("quickstart", engine, folder / "state", settings)) as subject:
            subject.up()
            yield subject


class OnEitherEngine:
    """The tests that both engines run, in this order, on one running stack.

    A module gives the fixtures: `stack` and `inside` for the whole of it, `bridge`, where the stack's processes reach
    this machine.
    """

    def test_up_ends_with_every_service_ready_and_two_urls(self, stack: StackUnderTest) -> None:
        status = stack.status()
        answers.hold("status", status)
        names = ["postgres", "role", "object-store", "bucket", "schema", "mlflow", "gateway-sync"]
        assert [service["name"] for service in status["services"]] == names
        assert {service["health"] for service in status["services"]} == {"healthy", "done"}
        assert all(
            service["memory"] > 10 * 2**20 for service in status["services"] if service["health"] == "healthy"
        )
        assert stack.service("mlflow")["url"] == stack.url
        assert status["gateway"] == f"{stack.url}/gateway/mlflow/v1"
        assert status["schema"]["state"] == "current"

    def test_a_story_outlives_down_and_up_and_lies_in_both_stores(
        self, stack: StackUnderTest, inside: Inside, tmp_path: Path
    ) -> None:
        told = story.tell(stack.url, tmp_path)
        story.check(stack.url, told, tmp_path)
        left = inside.watched()
        stack.down()
        assert left() == []
        stack.up()
        story.check(stack.url, told, tmp_path)
        model_is_in_both_stores(inside, told)

    def test_a_stock_client_moves_300_mb_both_ways_through_the_server_alone(
        self, stack: StackUnderTest, tmp_path: Path
    ) -> None:
        big_artifact(stack, tmp_path)

    @pytest.mark.parametrize("victim", ["postgres", "mlflow"])
    def test_no_acknowledged_metric_is_lost_when_a_service_is_killed(
        self, inside: Inside, victim: str
    ) -> None:
        metrics_survive(inside, victim)

    @pytest.mark.parametrize("victim", ["object-store", "mlflow"])
    def test_no_acknowledged_artifact_is_lost_when_a_service_is_killed(
        self, inside: Inside, victim: str, tmp_path: Path
    ) -> None:
        artifacts_survive(inside, victim, tmp_path)

    def test_the_gateway_chats_streams_and_names_the_missing_key(self, stack: StackUnderTest) -> None:
        gateway_answers(stack.status()["gateway"])

    def test_no_secret_shows_anywhere(self, stack: StackUnderTest, inside: Inside) -> None:
        no_secret_in(stack, inside.places() | what_anybody_can_read(stack))
        # A container's user is another one; the folder is closed.
        secret_files_are_closed(stack, 0o444 if stack.engine == "compose" else 0o400)

    def test_mlflow_is_no_superuser_of_its_stores(self, inside: Inside) -> None:
        roles_are_modest(inside)

    @pytest.mark.parametrize("name", ["postgres-password", "gateway-passphrase"])
    def test_a_lost_secret_is_named_and_nothing_changes(self, inside: Inside, name: str) -> None:
        lost_secret_is_named(inside, name)

    def test_a_foreign_host_or_origin_is_refused(self, stack: StackUnderTest) -> None:
        foreign_headers_are_refused(stack)

    def test_of_two_up_at_once_one_wins_and_a_standalone_gateway_has_a_url_of_its_own(
        self, stack: StackUnderTest
    ) -> None:
        one_of_two_wins(stack, "gateway=standalone")
        answer = stack.status()
        url = f"http://127.0.0.1:{stack.settings['gateway_port']}"
        assert answer["services"][-1]["url"] == url
        assert answer["gateway"] == f"{url}/v1"
        gateway_answers(answer["gateway"])

    def test_the_built_in_gateway_comes_back_and_a_changed_key_needs_no_restart(
        self, stack: StackUnderTest, inside: Inside
    ) -> None:
        answer = stack.up("--set", "gateway=server")
        assert answer["gateway"] == f"{stack.url}/gateway/mlflow/v1"
        gateway_answers(answer["gateway"])
        keys = stack.settings["gateway_keys"]
        shutil.copy(f"{keys}/provider-key", f"{keys}/absent-key")
        before = inside.identities()
        stack.up()
        assert inside.identities() == before
        assert chat(answer["gateway"], "keyless") == TEXT

    def test_a_second_copy_of_the_repository_runs_beside_the_first(
        self, stack: StackUnderTest, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        unwanted = (".git", ".venv", ".stacks", "__pycache__", ".*_cache", "tests", ".env")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*unwanted))
        second = StackUnderTest("minio-postgres", stack.engine, copy / ".stacks", free_ports(), root=copy)
        with taken_down(second):
            assert second.up()["project"] != stack.status()["project"]
            run = story.some_run(second.url)
            assert run.data.metrics == {"x": 1.0}
            assert story.some_run(stack.url).info.run_id != run.info.run_id
        assert stack.service("mlflow")["health"] == "healthy"

    def test_a_wrong_gateway_yaml_is_told_before_anything_starts(
        self, stack: StackUnderTest, tmp_path: Path
    ) -> None:
        broken = tmp_path / "gateway.yaml"
        broken.write_text(
            "endpoints:\n- name: chat\n  endpoint_type: llm/v1/chat\n  model: {provider: nosuch, name: x}\n"
        )
        fresh = StackUnderTest("gateway", stack.engine, tmp_path, {"gateway_config": broken})
        answer = fresh.invoke("up", "--stack=gateway", f"--engine={stack.engine}", expect=1).stderr
        assert "endpoints[0].model.provider" in answer
        assert str(broken) in answer
        assert not fresh.state.exists()

    def test_the_gateway_stack_runs_alone_and_starts_without_any_key(
        self, stack: StackUnderTest, bridge: str, tmp_path: Path
    ) -> None:
        with provider(bridge) as base:
            settings = {"gateway_port": free_port(), **write_gateway(tmp_path, base)}
            key = tmp_path / "keys" / "provider-key"
            key.rename(tmp_path / "aside")
            with taken_down(StackUnderTest("gateway", stack.engine, tmp_path / "state", settings)) as alone:
                answer = alone.up()
                assert [service["name"] for service in answer["services"]] == ["gateway"]
                (tmp_path / "aside").rename(key)
                gateway_answers(alone.up()["gateway"])
