"""Quickstart on the host engine: PostgreSQL, the object store, the server and its gateway as processes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import requests

from stacks.settings import ROOT
from tests import quickstart, story
from tests.host.database import servers
from tests.host.gateway.provider import provider
from tests.stack import StackUnderTest, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PORTS = {
    "mlflow": "port",
    "postgres": "postgres_port",
    "object-store": "object_store_port",
    "gateway": "gateway_port",
}


class Processes(quickstart.Inside):
    """A stack's processes, found by the ports that they listen on."""

    def process(self, service: str) -> psutil.Process:
        """A service's main process: the child of supervisord whose family holds the service's port."""
        port = self.stack.settings[PORTS[service]]
        for child in self.keeper.children():
            family = [child, *child.children(recursive=True)]
            for process in family:
                if any(c.laddr.port == port for c in process.net_connections("tcp") if c.status == "LISTEN"):
                    return child
        raise AssertionError(f"nobody listens for {service} on {port}")

    @property
    def keeper(self) -> psutil.Process:
        return psutil.Process(int((self.stack.state / "supervisord.pid").read_text()))

    def python(self, code: str) -> str:
        return quickstart.run_python([sys.executable, "-"], code, self.process("mlflow").environ())

    def kill(self, service: str) -> None:
        self.process(service).send_signal(signal.SIGKILL)

    def identities(self) -> dict[str, object]:
        return {service: self.process(service).pid for service in ("postgres", "object-store", "mlflow")}


def ports() -> dict[str, object]:
    return {setting: free_port() for setting in PORTS.values()}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackUnderTest]:
    """Start quickstart once, with a provider behind its gateway."""
    folder = tmp_path_factory.mktemp("quickstart")
    with provider() as base:
        settings = ports() | quickstart.write_gateway(folder, base)
        subject = StackUnderTest("quickstart", "host", folder / "state", settings)
        try:
            subject.up()
            yield subject
        finally:
            if (subject.state / "stack.json").exists():
                subject.down("--volumes", "--yes")


@pytest.fixture(scope="module")
def inside(stack: StackUnderTest) -> Processes:
    return Processes(stack)


def test_up_ends_with_every_service_ready_and_two_urls(stack: StackUnderTest) -> None:
    status = stack.status()
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
    stack: StackUnderTest, inside: Processes, tmp_path: Path
) -> None:
    told = story.tell(stack.url, tmp_path)
    story.check(stack.url, told, tmp_path)
    keeper = inside.keeper
    family = [keeper, *keeper.children(recursive=True)]
    stack.down()
    assert not [process for process in family if process.is_running() and process.status() != "zombie"]
    stack.up()
    story.check(stack.url, told, tmp_path)
    quickstart.model_is_in_both_stores(inside, told)


def test_a_stock_client_moves_300_mb_both_ways_through_the_server_alone(
    stack: StackUnderTest, tmp_path: Path
) -> None:
    quickstart.big_artifact(stack, tmp_path)


@pytest.mark.parametrize("victim", ["postgres", "mlflow"])
def test_no_acknowledged_metric_is_lost_when_a_service_is_killed(inside: Processes, victim: str) -> None:
    quickstart.metrics_survive(inside, victim)


@pytest.mark.parametrize("victim", ["object-store", "mlflow"])
def test_no_acknowledged_artifact_is_lost_when_a_service_is_killed(
    inside: Processes, victim: str, tmp_path: Path
) -> None:
    quickstart.artifacts_survive(inside, victim, tmp_path)


def test_the_gateway_chats_streams_and_names_the_missing_key(stack: StackUnderTest) -> None:
    quickstart.gateway_answers(stack.status()["gateway"])


def test_no_secret_shows_anywhere(stack: StackUnderTest) -> None:
    quickstart.no_secret_in(stack, quickstart.what_anybody_can_read(stack))
    quickstart.secret_files_are_closed(stack, 0o400)


def test_mlflow_is_no_superuser_of_its_stores(inside: Processes) -> None:
    quickstart.roles_are_modest(inside)


@pytest.mark.parametrize("name", ["postgres-password", "gateway-passphrase"])
def test_a_lost_secret_is_named_and_nothing_changes(inside: Processes, name: str) -> None:
    quickstart.lost_secret_is_named(inside, name)


def test_everything_listens_on_loopback_alone(stack: StackUnderTest, inside: Processes) -> None:
    family = [inside.keeper, *inside.keeper.children(recursive=True)]
    listening = {
        c.laddr for process in family for c in process.net_connections("tcp") if c.status == "LISTEN"
    }
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == {
        stack.settings[name] for name in ("port", "postgres_port", "object_store_port")
    }


def test_a_foreign_host_or_origin_is_refused(stack: StackUnderTest) -> None:
    quickstart.foreign_headers_are_refused(stack)


def test_of_two_up_at_once_one_wins_and_a_standalone_gateway_has_a_url_of_its_own(
    stack: StackUnderTest,
) -> None:
    quickstart.one_of_two_wins(stack, "gateway=standalone")
    answer = stack.status()
    url = f"http://127.0.0.1:{stack.settings['gateway_port']}"
    assert answer["services"][-1]["url"] == url
    assert answer["gateway"] == f"{url}/v1"
    quickstart.gateway_answers(answer["gateway"])


def test_the_built_in_gateway_comes_back(stack: StackUnderTest) -> None:
    answer = stack.up()
    assert answer["gateway"] == f"{stack.url}/gateway/mlflow/v1"
    quickstart.gateway_answers(answer["gateway"])


def test_a_wrong_gateway_yaml_is_told_before_anything_starts(tmp_path: Path) -> None:
    broken = tmp_path / "gateway.yaml"
    broken.write_text(
        "endpoints:\n- name: chat\n  endpoint_type: llm/v1/chat\n  model: {provider: nosuch, name: x}\n"
    )
    fresh = StackUnderTest(
        "gateway", "host", tmp_path, {"gateway_port": free_port(), "gateway_config": broken}
    )
    answer = fresh.invoke("up", "--stack=gateway", "--engine=host", expect=1).stderr
    assert "endpoints[0].model.provider" in answer
    assert str(broken) in answer
    assert not (fresh.state / "supervisord.pid").exists()


def test_the_gateway_stack_runs_alone_and_starts_without_any_key(tmp_path: Path) -> None:
    with provider() as base:
        settings = quickstart.write_gateway(tmp_path, base)
        alone = StackUnderTest(
            "gateway", "host", tmp_path / "state", {"gateway_port": free_port(), **settings}
        )
        key = tmp_path / "keys" / "provider-key"
        key.rename(tmp_path / "aside")
        try:
            answer = alone.up()
            assert [service["name"] for service in answer["services"]] == ["gateway"]
            (tmp_path / "aside").rename(key)
            answer = alone.up()
            quickstart.gateway_answers(answer["gateway"])
        finally:
            alone.down("--volumes", "--yes")


def test_a_second_copy_of_the_repository_runs_beside_the_first(stack: StackUnderTest, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    unwanted = shutil.ignore_patterns(".git", ".venv", ".stacks", "__pycache__", ".*_cache", "tests", ".env")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    second = StackUnderTest("minio-postgres", "host", copy / ".stacks", ports(), root=copy)
    try:
        assert second.up()["project"] != stack.status()["project"]
        run = story.some_run(second.url)
        assert run.data.metrics == {"x": 1.0}
        assert story.some_run(stack.url).info.run_id != run.info.run_id
    finally:
        second.down("--volumes", "--yes")
    assert stack.service("mlflow")["health"] == "healthy"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_full_store_is_told_to_the_client_and_serves_again_once_there_is_room(tmp_path: Path) -> None:
    import mlflow

    small = StackUnderTest("minio-postgres", "host", tmp_path / "state", ports())
    objects = small.state / "data" / "objects"
    objects.mkdir(parents=True)
    for folder in (small.state, small.state / "data", objects):
        folder.chmod(0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m,mode=700", "tmpfs", str(objects)], check=True)
    try:
        small.up()
        client = mlflow.MlflowClient(small.url)
        run = client.create_run("0").info.run_id
        kept, large = tmp_path / "kept.bin", tmp_path / "large.bin"
        kept.write_bytes(os.urandom(10 * 2**20))
        large.write_bytes(os.urandom(40 * 2**20))
        client.log_artifact(run, str(kept))
        with pytest.raises(requests.HTTPError, match="the artifact store is full, or lost the upload"):
            client.log_artifact(run, str(large))
        assert [file.path for file in client.list_artifacts(run)] == ["kept.bin"]
        (tmp_path / "back").mkdir()
        back = client.download_artifacts(run, "kept.bin", str(tmp_path / "back"))
        assert kept.read_bytes() == (tmp_path / "back" / "kept.bin").read_bytes(), back
        client.log_metric(run, "still", 1.0)
        subprocess.run(["mount", "-o", "remount,size=100m", str(objects)], check=True)
        client.log_artifact(run, str(large))
        client.download_artifacts(run, "large.bin", str(tmp_path / "back"))
        assert large.read_bytes() == (tmp_path / "back" / "large.bin").read_bytes()
    finally:
        small.down()
        subprocess.run(["umount", str(objects)], check=True)
        small.down("--volumes", "--yes")


ACCESS_KEY, SECRET_KEY, PASSWORD = (secrets.token_hex(12) for _ in range(3))  # shown by `ps` of no other test


def database_of_somebody(server: servers.Postgres, name: str) -> str:
    """Make a role that owns a database; its URI."""
    server.sql(f"CREATE ROLE somebody LOGIN PASSWORD '{PASSWORD}'")
    server.sql(f"CREATE DATABASE {name} OWNER somebody")
    return f"postgresql://somebody:{PASSWORD}@127.0.0.1:{server.port}/{name}"


@pytest.fixture(scope="module")
def database() -> Iterator[servers.Postgres]:
    """Start a PostgreSQL that no stack starts."""
    with servers.postgres() as server:
        yield server


@pytest.fixture(scope="module")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Start an S3 server that no stack starts, with one bucket; the settings that name it."""
    folder, port = tmp_path_factory.mktemp("external"), free_port()
    (folder / "mlflow").mkdir()
    keys = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    program = ROOT / "images" / "object-store" / "object_store.py"
    command = [sys.executable, str(program), "server", str(folder), "--address", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, env={"PATH": path, **keys}, stderr=subprocess.DEVNULL)
    yield {
        "object_store": "external",
        "s3_endpoint": f"http://127.0.0.1:{port}",
        "s3_access_key": ACCESS_KEY,
        "s3_secret_key": SECRET_KEY,
    }
    process.terminate()
    process.wait(60)


@pytest.fixture(scope="module")
def external(
    database: servers.Postgres, object_store: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StackUnderTest]:
    settings = ports() | object_store | {"database": database_of_somebody(database, "external")}
    subject = StackUnderTest("minio-postgres", "host", tmp_path_factory.mktemp("state"), settings)
    yield subject
    if (subject.state / "stack.json").exists():
        subject.down("--volumes", "--yes")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("database", "postgresql://somebody:wrong-password@127.0.0.1:{port}/external", "password"),
        (
            "database",
            "postgresql://somebody:wrong-password@127.0.0.1:1/external",
            "PostgreSQL does not answer",
        ),
        ("s3_secret_key", "wrong-secret", "MLflow's key does not open the bucket 'mlflow'"),
        ("s3_endpoint", "http://127.0.0.1:1", "does not answer"),
        ("s3_bucket", "nosuch", "the bucket 'nosuch'"),
    ],
)
def test_a_bad_external_store_is_found_before_anything_starts(
    external: StackUnderTest, database: servers.Postgres, setting: str, value: str, message: str
) -> None:
    wrong = {**external.settings, setting: value.format(port=database.port)}
    attempt = StackUnderTest(external.name, "host", external.state_dir, wrong)
    done = attempt.invoke("up", f"--stack={attempt.name}", "--engine=host", expect=1)
    assert message in done.stderr
    assert "nothing was started" in done.stderr
    for secret in ("wrong-password", "wrong-secret", SECRET_KEY, PASSWORD):
        assert secret not in done.stderr + done.stdout
    assert not (attempt.state / "supervisord.pid").exists()
    assert {service["state"] for service in attempt.status()["services"]} == {"stopped"}


def test_external_stores_take_all_that_a_client_logs(external: StackUnderTest, tmp_path: Path) -> None:
    answer = external.up()
    assert [service["name"] for service in answer["services"]] == ["bucket", "schema", "mlflow"]
    told = story.tell(external.url, tmp_path, megabytes=1)
    story.check(external.url, told, tmp_path)
    rows = Processes(external).sql(f"SELECT experiment_id FROM runs WHERE run_uuid = '{told.parent}'")
    assert rows == [[int(told.experiment)]]
    known = quickstart.secret_values(external)
    assert known["database-password"] == PASSWORD
    assert known["object-store-secret"] == SECRET_KEY
    quickstart.no_secret_in(external, quickstart.what_anybody_can_read(external))
