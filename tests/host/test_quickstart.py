"""Quickstart on the host engine: PostgreSQL, the object store, the server and its gateway as processes."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from develop.scratch import servers
from develop.scratch.ports import free_port, free_ports
from develop.scratch.stack import StackUnderTest
from stacks.definition.settings import ROOT
from tests.support import quickstart, secrecy, story, survival
from tests.support.inside import Inside, run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORTS = {
    "mlflow": "port",
    "postgres": "postgres_port",
    "object-store": "object_store_port",
    "gateway": "gateway_port",
}


class Processes(Inside):
    """A stack's processes, found by the ports that they listen on."""

    def process(self, service: str) -> psutil.Process:
        """A service's main process: the child of supervisord whose family holds the service's port."""
        port = self.stack.settings[PORTS[service]]
        for child in self.keeper.children():
            if port in {address.port for address in _listening(child)}:
                return child
        raise AssertionError(f"nobody listens for {service} on {port}")

    @property
    def keeper(self) -> psutil.Process:
        return psutil.Process(int((self.stack.state / "supervisord.pid").read_text()))

    def python(self, code: str) -> str:
        return run_python([sys.executable, "-"], code, self.process("mlflow").environ())

    def kill(self, service: str) -> None:
        self.process(service).send_signal(signal.SIGKILL)

    def identities(self) -> dict[str, object]:
        return {service: self.process(service).pid for service in ("postgres", "object-store", "mlflow")}

    def watched(self) -> Callable[[], list[object]]:
        family = [self.keeper, *self.keeper.children(recursive=True)]
        return lambda: [process for process in family if _runs(process)]

    def places(self) -> dict[str, str]:
        return {}


def _listening(top: psutil.Process) -> set[Any]:
    """Where a process and those below it listen; of those that end while they are asked, nowhere."""
    family = [top]
    with suppress(psutil.NoSuchProcess):
        family += top.children(recursive=True)
    addresses = set[Any]()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            addresses |= {c.laddr for c in process.net_connections("tcp") if c.status == "LISTEN"}
    return addresses


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != "zombie"
    except psutil.NoSuchProcess:  # it ended between the two
        return False


@pytest.fixture(scope="module")
def bridge() -> str:
    """Processes of this machine reach it on loopback."""
    return "127.0.0.1"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, bridge: str) -> Iterator[StackUnderTest]:
    """Start quickstart once."""
    with quickstart.running("host", tmp_path_factory.mktemp("quickstart"), bridge) as subject:
        yield subject


@pytest.fixture(scope="module")
def inside(stack: StackUnderTest) -> Processes:
    return Processes(stack)


class TestOnHost(quickstart.OnEitherEngine):
    """What Compose runs as well."""


def test_everything_listens_on_loopback_alone(stack: StackUnderTest, inside: Processes) -> None:
    listening = _listening(inside.keeper)
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == {
        stack.settings[name] for name in ("port", "postgres_port", "object_store_port")
    }


@contextmanager
def hung(main: psutil.Process) -> Iterator[None]:
    """A service that runs and does nothing any more, as on a disk or a network share that does not answer."""
    family = [main, *main.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def test_a_store_that_hangs_is_named_and_the_stack_can_be_stopped(
    stack: StackUnderTest, inside: Processes
) -> None:
    named = f"--stack={stack.name}"

    def unwell() -> dict[str, str]:
        answer = json.loads(stack.invoke("status", named, "--json", expect=1).stdout)
        return {
            service["name"]: service["detail"]
            for service in answer["services"]
            if service["name"] in answer["missing"]
        }

    left = inside.watched()
    with hung(inside.process("object-store")):
        answer = stack.invoke("status", named, expect=1).stderr
        assert f"as it should be: object-store; start it anew: invoke down {named}, then invoke up" in answer
        answer = stack.invoke("backup", named, expect=1).stderr
        assert answer.startswith("error: the data of stack 'quickstart' is out of reach: its service ")
        assert "'object-store' runs and does not answer" in answer
        with hung(inside.process("postgres")):
            assert unwell() == {
                "postgres": "does not answer",
                "object-store": "does not answer",
                "mlflow": "the tracking store did not answer within 5 seconds",
            }
            answer = stack.invoke("migrate", named, "--yes", expect=1).stderr
            assert "'postgres' runs and does not answer" in answer
            stack.down()
            assert left() == []
    stack.up()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_full_store_is_told_to_the_client_and_serves_again_once_there_is_room(tmp_path: Path) -> None:
    small = StackUnderTest("minio-postgres", "host", tmp_path / "state", free_ports())
    objects = small.state / "data" / "objects"
    objects.mkdir(parents=True)
    for folder in (small.state, small.state / "data", objects):
        folder.chmod(0o700)

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m,mode=700", "tmpfs", str(objects)], check=True)
    try:
        small.up()
        survival.full_store_is_told(small, objects, tmp_path)
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
    settings = free_ports() | object_store | {"database": database_of_somebody(database, "external")}
    subject = StackUnderTest("minio-postgres", "host", tmp_path_factory.mktemp("state"), settings)
    with quickstart.taken_down(subject):
        yield subject


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
    answer = attempt.invoke("up", f"--stack={attempt.name}", "--engine=host", expect=1)
    assert message in answer.stderr
    assert "nothing was started" in answer.stderr
    for secret in ("wrong-password", "wrong-secret", SECRET_KEY, PASSWORD):
        assert secret not in answer.stderr + answer.stdout
    assert not (attempt.state / "supervisord.pid").exists()
    assert {service["state"] for service in attempt.status()["services"]} == {"stopped"}


def test_external_stores_take_all_that_a_client_logs(external: StackUnderTest, tmp_path: Path) -> None:
    answer = external.up()
    assert [service["name"] for service in answer["services"]] == ["bucket", "schema", "mlflow"]
    told = story.tell(external.url, tmp_path, megabytes=1)
    story.check(external.url, told, tmp_path)
    rows = Processes(external).sql(f"SELECT experiment_id FROM runs WHERE run_uuid = '{told.parent}'")
    assert rows == [[int(told.experiment)]]
    known = secrecy.secret_values(external)
    assert known["database-password"] == PASSWORD
    assert known["object-store-secret"] == SECRET_KEY
    secrecy.no_secret_in(external, secrecy.what_anybody_can_read(external))
